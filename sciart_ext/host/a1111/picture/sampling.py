"""One call of a sampler in a run: each of its evaluations with the gates of its moment and of its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from modules import prompt_parser, sd_samplers_cfg_denoiser, shared

from ....compose.ways import fusion_of
from ....errors import SciArtError
from ....guidance.layout import Layout
from ....guidance.words import mixed_prompt, subjects_in
from ....influence.word_maps import WordMaps, columns_of
from ....memory import unless_too_large
from ....mixer.cost import Workload
from ....mixer.refusal import too_large
from ....recipe import Row
from ....recipe.doubtful import in_plan, without_guidance
from ...webui.watched import Watched
from ..model.parts import model_parts
from ..model.session import loaded_model
from ..neighbours.controlnet import check_rows_are_whole, told_apart
from ..neighbours.others import Others
from ..neighbours.row_order import in_order
from ..neighbours.rows_seen import RowsSeen
from ..neighbours.swallowed import nothing_swallowed
from ..neighbours.texts_kept import texts_kept
from ..prompts.embeddings import known_words
from ..prompts.tokens import Tokens
from ..settings import others_are_checked
from .fused import Evaluation, FusedPass, calls_with
from .guided import GuidedPass
from .masked import MaskedPass, OneRowPass, RegionsPass
from .moments import Moments
from .pass_context import PassContext
from .refusals import WAYS_OUT, refusals


class Pass:
    """One call of a sampler: gates for each of its evaluations, on whichever model is loaded at the time."""

    def __init__(self, context: PassContext, sampler, steps: int, x: torch.Tensor):
        self.context = context
        self.sampler = sampler
        self.denoiser = sampler.model_wrap_cfg
        self.moments = Moments(sampler, context.p, steps)
        self.plan = context.plan(self.moments.steps)
        self.plans = context.plans(self.plan, len(x))
        self.latent = x
        self._watched = context.asked if isinstance(context.asked, Watched) and not context.hires else None
        self._words: WordMaps | None = None
        self._stack = ExitStack()
        self._mixing = ExitStack()
        self._mixer = None
        self._fused: FusedPass | None = None
        self._masked: OneRowPass | None = None
        self._layout_before: Layout | None = None
        """of the model before, where a refiner was loaded that has none"""
        self._now: Evaluation | None = None

    def __enter__(self) -> Pass:
        try:
            self._mix()
            hook = self.denoiser.register_forward_pre_hook(self._before_evaluation, with_kwargs=True)
            self._stack.callback(hook.remove)
            after = self.denoiser.register_forward_hook(self._after_evaluation)
            self._stack.callback(after.remove)
            self._stack.enter_context(_replaced(self.denoiser, "update_inner_model", self._follow_model))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exception) -> None:
        try:
            layout = self._layout or self._layout_before
            if layout is not None:
                self.context.keep(layout)
            self._leave()
        finally:
            self._stack.close()

    @property
    def _layout(self) -> Layout | None:
        """Where the subjects are, if LoRAs are kept to them."""
        return self._fused.guide if isinstance(self._fused, GuidedPass) else self._masked and self._masked.layout

    @property
    def _apart(self) -> str:
        """What some rows or places of the picture have that others have not, as it is told; nothing where all have the
        same. What goes wrong elsewhere may have to do with it."""
        if self._mixer is None or not (self._gates_differ or self.plan.own or self.plan.masked):
            return ""
        return "LoRAs with masks" if self.plan.masked else "rows in which LoRAs act alone"

    @property
    def _gates_differ(self) -> bool:
        """Whether some rows have other weights than others."""
        return self.plan.rows_differ or self._sets_differ

    @property
    def _sets_differ(self) -> bool:
        """Whether other LoRAs act in some images of the batch than in others."""
        return len({plan.silent for plan in self.plans}) > 1

    def sample(self, sampling: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The sampler's run, which gives latents; where it does not fit in memory, a refusal that says what would."""
        with refusals(self.denoiser, self.context.refused, lambda: self._apart,
                      lambda: self._words is not None and self._masked is None):
            with nothing_swallowed("compose", WAYS_OUT) if self._apart else nullcontext():
                latents = unless_too_large(sampling, self._too_large)
        if self._watched is not None:
            self._watched.see(latents)
        self._tell_what_did_nothing()
        return latents

    def _tell_what_did_nothing(self) -> None:
        """Samplers with CFG++ and InstructPix2Pix models go on from the negative prompt's prediction at any scale."""
        counts = self.denoiser.need_last_noise_uncond or _is_edit(self.denoiser)
        if self._now is not None and self._now.cond_scale == 1 and not counts:
            for note in without_guidance(self.context.recipe):
                self.context.note(note)
        for note in in_plan(self.plan, self.context.hires):
            self.context.note(note)

    def _too_large(self) -> SciArtError | None:
        if self._mixer is None or self._now is None or self._sets_differ:
            return None  # other sets of LoRAs may still fit one by one
        if self._fused is not None:
            return self._fused.too_many(self._now, self._mixer.rows_called, functools.partial(self._set_gates, 1))
        if shared.sd_model.model.conditioning_key == "crossattn-adm":  # unCLIP's calls have a picture for their text
            return None
        images = len(self.latent)
        ways_out = [(images, "the setting `Batch cond/uncond` off")] if shared.opts.batch_cond_uncond else []
        silent = [[0.0] * self._mixer.count]  # masks may not be known yet
        self._mixer.set_gates(silent if self._masked is not None else self._rows[:1])
        return too_large(self._mixer, calls_with(self.denoiser, self._now.cond, self._now), images, ways_out)

    def _mix(self) -> None:
        mixture = self.context.mixture()
        self._mixer = mixture.unet if mixture else None
        self._fused = self._words = self._masked = None
        if self._mixer is None:
            return
        rows = len(self.latent) * len(self.plan.rows())
        self._mixer.choose(Workload(self.moments.evaluations, self.plan.changes(), rows, *self.latent.shape[-2:],
                                    rows_differ=self.plan.unmasked_rows_differ or self._sets_differ))
        if self._gates_differ or self.plan.masked:
            self._check_rows()
        self._mixing.enter_context(self._mixer)
        if self.plan.own:
            self._fuse()
        elif self._sets_differ:
            self._mixing.enter_context(_replaced(sd_samplers_cfg_denoiser, "cfg_denoiser_callback",
                                                 functools.partial(in_order, self.denoiser, Others())))
        if self._watched is not None and self._watched.words:
            self._watch_words(self._watched.words)
        if self.plan.masked:
            self._place()
        if self._layout is not None and self._watched is not None:
            self._layout.shared = self._watched.noise

    def _leave(self) -> None:
        """The model is left as it was; what the mixer did otherwise than usual is told."""
        for note in self._mixer.notes if self._mixer is not None else ():
            self.context.note(note)
        self._mixing.close()

    def _check_rows(self) -> None:
        try:
            check_rows_are_whole(self._mixer.root)
        except SciArtError as error:
            raise self.context.refused(error) from None

    def _fuse(self) -> None:
        context, plan = self.context, self.plan
        encoded = told_apart(context.encoded(), plan.rows())
        try:
            if plan.subjects:
                with known_words(context.mixture()):
                    self._fused = GuidedPass(self._mixing, self.sampler, plan, context.recipe.guidance, encoded)
            else:
                self._fused = FusedPass(self.sampler, plan, encoded, fusion_of(plan, context.recipe.composition))
        except SciArtError as error:
            raise context.refused(error) from None
        self._mixing.enter_context(_replaced(prompt_parser, "reconstruct_multicond_batch", self._laid_out))
        self._mixing.enter_context(_replaced(sd_samplers_cfg_denoiser, "cfg_denoised_callback", self._predicted))
        if others_are_checked():
            seen = RowsSeen(self.denoiser, plan.rows(), len(encoded.prompts), self._fused.noise_of, self._silent,
                            WAYS_OUT)
            self._mixing.enter_context(_replaced(sd_samplers_cfg_denoiser, "cfg_denoiser_callback", seen.conditioned))

    def _place(self) -> None:
        context, watching = self.context, [self._words] if self._words is not None else []
        encoded = told_apart(context.encoded(), self.plan.rows())
        given = (self._mixing, self.sampler, self.plan, context.recipe, encoded, self._mixer, watching)
        try:
            with known_words(context.mixture()):
                self._masked = MaskedPass(*given) if self.plan.subjects else RegionsPass(*given, self.latent)
        except SciArtError as error:
            raise context.refused(error) from None
        if others_are_checked():
            self._mixing.enter_context(_replaced(sd_samplers_cfg_denoiser, "cfg_denoiser_callback",
                                                 functools.partial(texts_kept, self.denoiser, Others())))

    def _laid_out(self, original: Callable, conditioning, step: int) -> tuple:
        parts, texts = original(conditioning, step)
        self._fused.laid_out(conditioning, parts)
        return parts, texts

    def _predicted(self, original: Callable, params) -> None:
        """All rows of an evaluation have their predictions: they are fused before anyone else looks at them."""
        if params.inner_model is self.denoiser.inner_model:
            self._fused.fuse(params.x)
        original(params)

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Calls of the model in this context are made as without LoRAs, and nothing is seen of them."""
        with ExitStack() as stack:
            for one in filter(None, (self._words, self._fused, self._masked)):
                stack.enter_context(one.looking_away())
            stack.enter_context(self._mixer.silent())
            yield

    def _watch_words(self, words: Sequence[str]) -> None:
        model = loaded_model()
        unet, tokens = model_parts(model)["unet"], Tokens(model)
        prompt = self.context.p.prompts[0]
        prompt = mixed_prompt(subjects_in(self.plan), prompt) if self.plan.subjects else prompt
        try:
            with known_words(self.context.mixture()):
                columns = columns_of(words, prompt, tokens.of_words, tokens.chunks(prompt))
        except SciArtError as error:
            raise self.context.refused(error) from None
        self._words = self._mixing.enter_context(WordMaps(unet.root, unet.layers, columns))
        self._watched.word_maps.append(self._words)

    def _follow_model(self, original: Callable[[], None]) -> None:
        """The refiner has been loaded: leave the old UNet, mix in the new one."""
        before, masked, self._layout_before = self._fused, self._masked, self._layout
        self._leave()
        original()
        self._mix()
        if self._masked is not None and masked is not None:
            self._masked.follow(masked)
            self.sampler.sampler_extra_args.update(self._masked.needed())
        if self._mixer is not None:
            self._mixer.set_gates(self._rows, views=self._views())
        self._record_words()
        if self._fused is not None:
            self._fused.follow(before)
            self.sampler.sampler_extra_args["cond"] = self._fused.needed()

    def _before_evaluation(self, denoiser, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        given = {**dict(zip(("x", "sigma"), args)), **kwargs}
        now = Evaluation.of({**self.sampler.sampler_extra_args,
                             **{name: value for name, value in given.items() if value is not None}})
        progress = self.moments.progress(denoiser.step, now.sigma)
        self._now = now
        if self.context.asked is not None and self.context.asked.stop():
            shared.state.interrupt()  # before its next step the host stops
        is_first = self.moments.is_first_of_step(denoiser.step)
        set_gates = functools.partial(self._set_gates, len(now.cond.batch))
        if self._fused is not None:
            self._fused.begin(progress, now)
            self._fused.look_ahead(set_gates)
        elif self._masked is not None:
            self._masked.begin(now, set_gates)
        if self._watched is not None and is_first:
            self._watched.see(now.x)
        if self._fused is not None:
            if is_first:
                self._fused.update(self.moments.step(denoiser.step), self.moments.steps, set_gates)
            kwargs = {**kwargs, "cond": self._fused.needed()}
            *rows, last = self._fused.rows()
            told = [plan.gates(progress, row) for plan in self.plans for row in rows]
        else:
            if self._masked is not None:
                kwargs = {**kwargs, **self._masked.needed()}
            last = Row(uncond=True)
            told = [plan.gates(progress) for plan, image in zip(self.plans, now.cond.batch) for _ in image]
        # InstructPix2Pix evaluates every picture twice more without its prompt, other models once
        without = [plan.gates(progress, last) for plan in self.plans] * (2 if _is_edit(denoiser) else 1)
        self._rows, self._rows_per_image = told + without, len(told) // len(self.plans)
        if self._mixer is not None:
            self._mixer.set_gates(self._rows, self._coming(denoiser.step), self._views())
        if self._masked is not None and is_first and self.moments.is_in_last_step(denoiser.step):
            self._masked.watch(progress)
        self._record_words()
        return args, kwargs

    def _views(self) -> Sequence[int]:
        """Of each row of the evaluation, where LoRAs have masks."""
        return () if self._masked is None else self._masked.views(len(self._rows))

    def _coming(self, evaluation: int) -> tuple[float, ...] | None:
        """The gates of all rows of the step after that of this evaluation; None where rows differ, or none is known."""
        progress = self.moments.coming_progress(evaluation)
        if self._fused is not None or self._gates_differ or progress is None:
            return None
        return self.plan.gates(progress)

    def _record_words(self) -> None:
        if self._words is not None:
            self._words.record([[image * self._rows_per_image + row for row in self.plan.looking()]
                                for image in range(len(self.plans))])

    def _after_evaluation(self, *_) -> None:
        if self._fused is not None:
            self._fused.end()
        if self._masked is not None:
            self._masked.evaluated()
        if self._words is not None:
            self._words.add()

    def _set_gates(self, images: int, rows: Sequence[Row], progress: float) -> None:
        """For a call with these rows of each of the first so many images."""
        self._mixer.set_gates([plan.gates(progress, row) for plan in self.plans[:images] for row in rows])


def _is_edit(denoiser) -> bool:
    scale = denoiser.image_cfg_scale
    return shared.sd_model.cond_stage_key == "edit" and scale is not None and scale != 1.0


@contextmanager
def _replaced(owner: object, name: str, replacement: Callable):
    """Calls of `owner.name` go to `replacement(original, …)` while it lasts; of an object it is set on the instance,
    not the class."""
    is_own, original = name in vars(owner), getattr(owner, name)
    setattr(owner, name, functools.partial(replacement, original))
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
