"""One run of the host: carries a recipe through its prompts, passes and batches, and takes everything back.

The host swallows exceptions from script callbacks; what goes wrong in ours is raised again where it does not.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from modules import sd_samplers_timesteps, sd_unet, shared

from ..errors import SciArtError
from ..evaluations import EvaluationPattern, progress_of_sigma
from ..guidance.guide import Guide
from ..guidance.sheet import Seen, subject_sheet
from ..guidance.words import mixed_prompt, subjects_in
from ..influence.word_maps import WordMaps, columns_of
from ..memory import unless_too_large
from ..mixer.cost import Workload
from ..mixer.mixture import Mixture
from ..plan import PassPlan, Row, compile_plan
from ..presets import PresetStore, resolve
from ..recipe import INFOTEXT_KEY, Recipe, parse_recipe, recipe_to_text
from ..schedule import step_progress
from .a1111_errors import as_request_error
from .a1111_guided import Evaluation, GuidedPass, check_can_guide
from .a1111_model import model_parts
from .a1111_prompts import Prompts
from .a1111_session import fingerprint, loaded_model, lora_paths, session
from .a1111_tokens import Tokens
from .a1111_watched import Watched

NOTES_KEY, LOSS_KEY = "SciArt notes", "SciArt loss"
log = logging.getLogger("sciart")


class Run:
    """A recipe on one `StableDiffusionProcessing`; all its state lives on `p` and ends with it."""

    def __init__(self, p, argument: object, watched: Watched | None = None):
        self.p = p
        self.watched = watched
        self.recipe: Recipe = resolve(parse_recipe(argument), PresetStore())
        if self.recipe.compose == "contrastive":
            check_can_guide()
        self.sampled = False
        self.seen: list[list[Seen]] = []
        """what guidance saw in each call of a sampler, of each image"""
        p.extra_generation_params[INFOTEXT_KEY] = recipe_to_text(self.recipe)
        for note in session.mixture(loaded_model(), self.recipe).notes:
            self.note(note)
        self.prompts = Prompts(p, [fingerprint(path) for path in lora_paths(self.recipe)],
                               lambda hires: self._plan(p.steps, hires), self._plans, self._mixture)
        if watched is not None:
            shared.state.job_no, shared.state.job_count = watched.batch, watched.batches
            if watched.stop():
                shared.state.interrupt()

    def check_prompt(self) -> None:
        """A note where a LoRA of the recipe is in the prompt too: both act."""
        prompted = {params.items[0] for params in (self.p.extra_network_data or {}).get("lora", []) if params.items}
        for lora in self.recipe.loras:
            if lora.name in prompted:
                self.note(f"{lora.name} is also in the prompt as <lora:{lora.name}:…>: both weights act")

    def before_sampling(self, x: torch.Tensor) -> None:
        """Takes part in the sampling that the host is about to start with latent x (rows, channels, h, w)."""
        sampler = self.p.sampler
        original = sampler.launch_sampling

        def launch(steps, func):
            del sampler.launch_sampling
            self.sampled = True
            if sd_unet.current_unet is not None:
                raise as_request_error(SciArtError("sd_unet", f"{sd_unet.current_unet.option.label} replaces the "
                                                              "UNet; SciArt cannot mix there. Set SD Unet to None"))
            with Pass(self, sampler, steps, x) as sampling:
                return sampling.sample(functools.partial(original, steps, func))

        sampler.launch_sampling = launch

    def note(self, text: str) -> None:
        """Something doubtful, shown with the result and kept in its infotext."""
        self.p.comment(f"SciArt: {text}")
        known = self.p.extra_generation_params.get(NOTES_KEY)
        if text not in (known or ""):
            self.p.extra_generation_params[NOTES_KEY] = f"{known}; {text}" if known else text

    def keep(self, guide: Guide) -> None:
        """What is told and shown of the guidance of a pass: the losses before its updates, means over its images."""
        if guide.settings.show:
            self.seen.append(guide.seen())
        if guide.losses:
            losses = " ".join(f"{sum(images) / len(images):.3f}" for images in guide.losses)
            log.info("loss of guidance before each update: %s", losses)
            self.p.extra_generation_params[LOSS_KEY] = losses

    def finish(self, processed) -> None:
        """The run is over: adds what is to be shown; says so where the host's sampling went past us."""
        self.prompts.detach()
        passes = 2 if getattr(self.p, "enable_hr", False) and self.recipe.guidance.hires else 1
        seen = [image for images in self.seen[passes - 1::passes] for image in images]
        first, labels = processed.index_of_first_image, [lora.label for lora in self.recipe.loras if lora.subject]
        for i, (picture, one) in enumerate(zip(processed.images[first:], seen)):
            processed.images.append(subject_sheet(picture, one, labels))
            processed.infotexts.append(processed.infotexts[first + i])
        if self.watched is not None:
            self.watched.interrupted = shared.state.interrupted or shared.state.skipped
            self.watched.pictures += [np.asarray(picture.convert("RGB"))
                                      for picture in processed.images[first:first + len(self.watched.sets)]]
        if not self.sampled and not (shared.state.interrupted or shared.state.skipped):
            self.note("another extension sampled this picture in its own way; the LoRAs of the recipe did not act")

    def _plan(self, steps: int, hires: bool | None = None) -> PassPlan:
        """Of the first or the hires pass, or of the one that runs now."""
        if getattr(self.p, "is_hr_pass", False) if hires is None else hires:
            return compile_plan(self.recipe, self.p.steps, steps).hires
        return compile_plan(self.recipe, steps).first

    def _plans(self, plan: PassPlan, images: int) -> list[PassPlan]:
        """Of each image of a batch."""
        return self.watched.plans(plan) if self.watched is not None else [plan] * images

    def _mixture(self) -> Mixture | None:
        """The LoRAs on the model that is loaded now; None, with a note, for a later model they do not fit."""
        try:
            return session.mixture(loaded_model(), self.recipe)
        except SciArtError as error:
            if not self.sampled:
                raise as_request_error(error) from None
            self.note(f"{loaded_model().sd_checkpoint_info.name_for_extra} runs without the LoRAs ({error})")
            return None


class Pass:
    """One call of a sampler: gates for each of its evaluations, on whichever model is loaded at the time."""

    def __init__(self, run: Run, sampler, steps: int, x: torch.Tensor):
        self.run = run
        self.sampler = sampler
        self.denoiser = sampler.model_wrap_cfg
        self.pattern = _pattern(sampler)
        self.steps = _evaluated_steps(sampler, run.p, steps)
        self.plan = run._plan(self.steps)
        self.plans = run._plans(self.plan, len(x))
        self.latent = x
        self._watched = None if getattr(run.p, "is_hr_pass", False) else run.watched
        self._words: WordMaps | None = None
        self._stack = ExitStack()
        self._mixing = ExitStack()
        self._mixer = None
        self._guided: GuidedPass | None = None
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
            if self._guided is not None:
                self.run.keep(self._guided.guide)
            self._mixing.close()
        finally:
            self._stack.close()

    def sample(self, sampling: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The sampler's run, which gives latents; where it is guided and does not fit in memory, a refusal that says
        what would."""
        def refusal() -> SciArtError | None:
            if self._guided is None or self._now is None or len({plan.silent for plan in self.plans}) > 1:
                return None  # other sets of LoRAs may still fit one by one
            set_gates = functools.partial(self._set_gates, 1)
            return self._guided.too_many(self._now, self._mixer.rows_called, set_gates)

        try:
            latents = unless_too_large(sampling, refusal)
        except SciArtError as error:
            raise as_request_error(error) from None
        if self._watched is not None:
            self._watched.see(latents)
        return latents

    def _mix(self) -> None:
        mixture = self.run._mixture()
        self._mixer = mixture.unet if mixture else None
        self._guided = self._words = None
        if self._mixer is None:
            return
        rows = len(self.latent) * len(self.plan.rows())
        calls = self.steps * self.pattern.per_step
        self._mixer.choose(Workload(calls, self.plan.changes(), rows, *self.latent.shape[-2:],
                                    rows_differ=self.plan.rows_differ or len({plan.silent for plan in self.plans}) > 1))
        self._mixing.enter_context(self._mixer)
        if self.plan.subjects:
            self._guide()
        if self._watched is not None and self._watched.words:
            self._watch_words(self._watched.words)

    def _guide(self) -> None:
        hires = getattr(self.run.p, "is_hr_pass", False)
        try:
            self._guided = GuidedPass(self._mixing, self.sampler, self.plan, self.run.recipe.guidance,
                                      self.run.prompts.encoded[hires])
        except SciArtError as error:
            raise as_request_error(error) from None
        self._mixing.enter_context(_replaced(self.denoiser, "combine_denoised", self._guided.combine))

    def _watch_words(self, words: Sequence[str]) -> None:
        model = loaded_model()
        unet, tokens = model_parts(model)["unet"], Tokens(model)
        prompt = self.run.p.prompts[0]
        prompt = mixed_prompt(subjects_in(self.plan), prompt) if self.plan.subjects else prompt
        try:
            columns = columns_of(words, prompt, tokens.of_words, tokens.chunks(prompt))
        except SciArtError as error:
            raise as_request_error(error) from None
        self._words = self._mixing.enter_context(WordMaps(unet.root, unet.layers, columns))
        self._watched.word_maps.append(self._words)

    def _follow_model(self, original: Callable[[], None]) -> None:
        """The refiner has been loaded: leave the old UNet, mix in the new one."""
        before = self._guided
        self._mixing.close()
        original()
        self._mix()
        if self._mixer is not None:
            self._mixer.set_gates(self._rows)
        if self._words is not None:
            self._words.record(len(self.plans), self._rows_per_image)
        if self._guided is not None:
            self._guided.follow(before)
            self.sampler.sampler_extra_args["cond"] = self._guided.needed()

    def _before_evaluation(self, denoiser, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        given = {**dict(zip(("x", "sigma"), args)), **kwargs}
        now = Evaluation.of({**self.sampler.sampler_extra_args,
                             **{name: value for name, value in given.items() if value is not None}})
        progress = self._progress(denoiser, now.sigma)
        self._now = now
        if self._watched is not None and self._is_first_of_step(denoiser.step):
            self._watched.see(now.x)
        if self._guided is not None:
            self._guided.begin(progress)
            if self._is_first_of_step(denoiser.step):
                set_gates = functools.partial(self._set_gates, len(now.cond.batch))
                self._guided.update(now, self.pattern.step(denoiser.step), self.steps, set_gates)
            kwargs = {**kwargs, "cond": self._guided.needed()}
        # InstructPix2Pix evaluates every picture twice more without its prompt, other models once
        without = [plan.gates(progress, Row(uncond=True)) for plan in self.plans] * (2 if _is_edit(denoiser) else 1)
        told = self._rows_of_prompts(now.cond, progress)
        self._rows, self._rows_per_image = told + without, len(told) // len(self.plans)
        if self._mixer is not None:
            self._mixer.set_gates(self._rows)
        if self._words is not None:
            self._words.record(len(self.plans), self._rows_per_image)
        return args, kwargs

    def _after_evaluation(self, *_) -> None:
        if self._words is not None:
            self._words.add()

    def _set_gates(self, images: int, rows: Sequence[Row], progress: float) -> None:
        """For a call with these rows of each of the first so many images."""
        self._mixer.set_gates([plan.gates(progress, row) for plan in self.plans[:images] for row in rows])

    def _rows_of_prompts(self, cond, progress: float) -> list[tuple[float, ...]]:
        """The gates of every row that reads a prompt, image by image."""
        if self._guided is None:
            return [plan.gates(progress) for plan, image in zip(self.plans, cond.batch) for _ in image]
        rows = self.plan.rows()[:-1] if self._guided.guide.is_fusing(progress) else [Row()]
        return [plan.gates(progress, row) for plan in self.plans for row in rows]

    def _is_first_of_step(self, evaluation: int) -> bool:
        return evaluation == 0 or self.pattern.step(evaluation) > self.pattern.step(evaluation - 1)

    def _progress(self, denoiser, sigma: torch.Tensor) -> float:
        if self.sampler.funcname == "sample_dpm_adaptive":
            sigmas = denoiser.inner_model.sigmas
            return progress_of_sigma(float(sigma.max()), float(sigmas[0]), float(sigmas[-1]))
        return step_progress(self.pattern.step(denoiser.step), self.steps)


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
    """Calls of `owner.name` go to `replacement(original, …)` while it lasts; set on the instance, not the class."""
    original = getattr(owner, name)
    setattr(owner, name, functools.partial(replacement, original))
    try:
        yield
    finally:
        delattr(owner, name)
