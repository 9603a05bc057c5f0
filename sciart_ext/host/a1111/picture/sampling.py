"""One call of a sampler in a run: each of its evaluations with the gates of its moment and of its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from modules import prompt_parser, sd_samplers_cfg_denoiser, sd_samplers_timesteps, shared
from modules.processing import StableDiffusionProcessing

from ....compose.ways import fusion_of
from ....errors import SciArtError, UnknownRowsError, UnseenAttentionError, quoted
from ....guidance.guide import Guide
from ....guidance.words import mixed_prompt, subjects_in
from ....influence.word_maps import WordMaps, columns_of
from ....memory import is_out_of_memory, unless_too_large
from ....mixer.cost import Workload
from ....mixer.mixture import Mixture
from ....mixer.refusal import too_large
from ....recipe import PassPlan, Recipe, Row
from ....recipe.doubtful import in_plan, without_guidance
from ....recipe.evaluations import EvaluationPattern, progress_of_sigma
from ....recipe.schedule import step_progress
from ...protocols import Note, Refused
from ...webui.watched import Asked, Watched
from ..model.parts import model_parts
from ..model.session import loaded_model
from ..neighbours.controlnet import check_rows_are_whole, told_apart
from ..neighbours.others import Others, named
from ..neighbours.row_order import in_order
from ..neighbours.rows_seen import RowsSeen
from ..neighbours.swallowed import nothing_swallowed
from ..prompts.embeddings import known_words
from ..prompts.encoding import EncodedRows
from ..prompts.tokens import Tokens
from ..settings import others_are_checked
from .fused import Evaluation, FusedPass, calls_with
from .guided import GuidedPass

WAYS_OUT = "accepted: merge, switch, with apply_to both and one weight for both prompts"


@dataclass(frozen=True)
class PassContext:
    """What a call of a sampler needs of its run."""

    p: StableDiffusionProcessing
    hires: bool
    """whether it is the hires pass"""
    recipe: Recipe
    asked: Asked | None
    """what our own routes ask of the run"""
    plan: Callable[[int], PassPlan]
    """of this pass, for a number of steps"""
    plans: Callable[[PassPlan, int], Sequence[PassPlan]]
    """(plan, images): of each image of the batch"""
    encoded: Callable[[], EncodedRows]
    """the conditionings of this pass, where LoRAs have rows of their own"""
    mixture: Callable[[], Mixture | None]
    """the LoRAs on the model that is loaded now; None where they do not fit it"""
    note: Note
    keep: Callable[[Guide], None]
    """is given the guidance of the pass at its end"""
    refused: Refused


class Pass:
    """One call of a sampler: gates for each of its evaluations, on whichever model is loaded at the time."""

    def __init__(self, context: PassContext, sampler, steps: int, x: torch.Tensor):
        self.context = context
        self.sampler = sampler
        self.denoiser = sampler.model_wrap_cfg
        self.pattern = _pattern(sampler)
        self.steps = _evaluated_steps(sampler, context.p, steps)
        self.plan = context.plan(self.steps)
        self.plans = context.plans(self.plan, len(x))
        self.latent = x
        self._watched = context.asked if isinstance(context.asked, Watched) and not context.hires else None
        self._words: WordMaps | None = None
        self._stack = ExitStack()
        self._mixing = ExitStack()
        self._mixer = None
        self._fused: FusedPass | None = None
        self._now: Evaluation | None = None
        self._levels: tuple[torch.Tensor, float, float] | None = None
        """the model's noise levels, the least and the largest of them"""

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
            if isinstance(self._fused, GuidedPass):
                self.context.keep(self._fused.guide)
            self._leave()
        finally:
            self._stack.close()

    @property
    def _rows_have_their_own(self) -> bool:
        """Whether some rows have other weights than others: what then goes wrong elsewhere may have to do with us."""
        return self._mixer is not None and (self.plan.rows_differ or self._sets_differ or self._fused is not None)

    @property
    def _sets_differ(self) -> bool:
        """Whether other LoRAs act in some images of the batch than in others."""
        return len({plan.silent for plan in self.plans}) > 1

    def sample(self, sampling: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The sampler's run, which gives latents; where it does not fit in memory, a refusal that says what would."""
        try:
            with nothing_swallowed("compose", WAYS_OUT) if self._rows_have_their_own else nullcontext():
                latents = unless_too_large(sampling, self._too_large)
        except SciArtError as error:
            raise self.context.refused(error) from error
        except UnknownRowsError as error:
            file = Others().in_error(error)
            known = SciArtError("compose", f"{f'{file}: ' if file else ''}{error}; {WAYS_OUT}")
            raise self.context.refused(known) from None
        except UnseenAttentionError as error:
            raise self.context.refused(self._unseen(error)) from None
        except Exception as error:
            file = Others().in_error(error) if self._rows_have_their_own else None
            if file is None or is_out_of_memory(error):  # memory can run out wherever the model is called
                raise
            failed = SciArtError("compose", f"{file} failed beside rows in which LoRAs act alone: "
                                            f"{quoted(str(error) or type(error).__name__)}; {WAYS_OUT}")
            raise self.context.refused(failed) from error
        if self._watched is not None:
            self._watched.see(latents)
        self._tell_what_did_nothing()
        return latents

    def _unseen(self, error: UnseenAttentionError) -> SciArtError:
        """Of word maps, or of contrastive guidance; names who is in the model."""
        files = Others().in_evaluation(self.denoiser.inner_model, shared.sd_model)
        told = f"{error}{f' ({named(files)})' if files else ''}"
        if self._words is not None:
            return SciArtError("words", f"{told}; accepted: [], or that extension off for this picture")
        return SciArtError("compose", f"{told}; accepted: merge, switch")

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
        self._mixer.set_gates(self._rows[:1])
        return too_large(self._mixer, calls_with(self.denoiser, self._now.cond, self._now), images, ways_out)

    def _mix(self) -> None:
        mixture = self.context.mixture()
        self._mixer = mixture.unet if mixture else None
        self._fused = self._words = None
        if self._mixer is None:
            return
        rows = len(self.latent) * len(self.plan.rows())
        calls = self.steps * self.pattern.per_step
        self._mixer.choose(Workload(calls, self.plan.changes(), rows, *self.latent.shape[-2:],
                                    rows_differ=self.plan.rows_differ or self._sets_differ))
        if self.plan.rows_differ or self._sets_differ:
            self._check_rows()
        self._mixing.enter_context(self._mixer)
        if self.plan.own:
            self._fuse()
        elif self._sets_differ:
            self._mixing.enter_context(_replaced(sd_samplers_cfg_denoiser, "cfg_denoiser_callback",
                                                 functools.partial(in_order, self.denoiser)))
        if self._watched is not None and self._watched.words:
            self._watch_words(self._watched.words)

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
            for one in filter(None, (self._words, self._fused)):
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
        before = self._fused
        self._leave()
        original()
        self._mix()
        if self._mixer is not None:
            self._mixer.set_gates(self._rows)
        self._record_words()
        if self._fused is not None:
            self._fused.follow(before)
            self.sampler.sampler_extra_args["cond"] = self._fused.needed()

    def _before_evaluation(self, denoiser, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        given = {**dict(zip(("x", "sigma"), args)), **kwargs}
        now = Evaluation.of({**self.sampler.sampler_extra_args,
                             **{name: value for name, value in given.items() if value is not None}})
        progress = self._progress(denoiser.step, now.sigma)
        self._now = now
        if self.context.asked is not None and self.context.asked.stop():
            shared.state.interrupt()  # before its next step the host stops
        if self._watched is not None and self._is_first_of_step(denoiser.step):
            self._watched.see(now.x)
        if self._fused is not None:
            self._fused.begin(progress, now)
            if self._is_first_of_step(denoiser.step):
                set_gates = functools.partial(self._set_gates, len(now.cond.batch))
                self._fused.update(self.pattern.step(denoiser.step), self.steps, set_gates)
            kwargs = {**kwargs, "cond": self._fused.needed()}
            *rows, last = self._fused.rows()
            told = [plan.gates(progress, row) for plan in self.plans for row in rows]
        else:
            last = Row(uncond=True)
            told = [plan.gates(progress) for plan, image in zip(self.plans, now.cond.batch) for _ in image]
        # InstructPix2Pix evaluates every picture twice more without its prompt, other models once
        without = [plan.gates(progress, last) for plan in self.plans] * (2 if _is_edit(denoiser) else 1)
        self._rows, self._rows_per_image = told + without, len(told) // len(self.plans)
        if self._mixer is not None:
            self._mixer.set_gates(self._rows, self._coming(denoiser.step))
        self._record_words()
        return args, kwargs

    def _coming(self, evaluation: int) -> tuple[float, ...] | None:
        """The gates of all rows of the step after that of this evaluation; None where rows differ, or none is known."""
        step = self.pattern.step(evaluation + 1)
        if (self._fused is not None or self.plan.rows_differ or self._sets_differ or step >= self.steps
                or self.sampler.funcname == "sample_dpm_adaptive"):
            return None
        return self.plan.gates(step_progress(step, self.steps))

    def _record_words(self) -> None:
        if self._words is not None:
            self._words.record([[image * self._rows_per_image + row for row in self.plan.looking()]
                                for image in range(len(self.plans))])

    def _after_evaluation(self, *_) -> None:
        if self._words is not None:
            self._words.add()

    def _set_gates(self, images: int, rows: Sequence[Row], progress: float) -> None:
        """For a call with these rows of each of the first so many images."""
        self._mixer.set_gates([plan.gates(progress, row) for plan in self.plans[:images] for row in rows])

    def _is_first_of_step(self, evaluation: int) -> bool:
        return evaluation == 0 or self.pattern.step(evaluation) > self.pattern.step(evaluation - 1)

    def _progress(self, evaluation: int, sigma: torch.Tensor) -> float:
        if self.sampler.funcname == "sample_dpm_adaptive":  # which waits for each of its steps to know the next one's
            sigmas = self.denoiser.inner_model.sigmas
            if self._levels is None or self._levels[0] is not sigmas:
                self._levels = sigmas, float(sigmas[0]), float(sigmas[-1])
            return progress_of_sigma(float(sigma.max()), *self._levels[1:])
        return step_progress(self.pattern.step(evaluation), self.steps)


def _pattern(sampler) -> EvaluationPattern:
    if sampler.func.__name__ == "plms":
        return EvaluationPattern(extra_in_first=1)
    return EvaluationPattern(per_step=2 if sampler.config.options.get("second_order") else 1)


def _evaluated_steps(sampler, p, steps: int) -> int:
    """The steps that are really run: the host's timestep samplers run one less, or as many as timesteps divide."""
    if not isinstance(sampler, sd_samplers_timesteps.CompVisSampler):
        return steps
    from_picture = getattr(p, "is_hr_pass", False) or hasattr(p, "init_images")
    count = steps - 1 if from_picture else len(sampler.get_timesteps(p, steps))
    return max(count if sampler.func.__name__ == "unipc" else count - 1, 1)


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
