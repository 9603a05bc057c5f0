"""Contrastive guidance in the host: its rows are AND parts of the host's own batch, fused where the host joins them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields

import torch
from modules import prompt_parser, sd_samplers_timesteps, shared
from torch import Tensor

from ..errors import SciArtError
from ..guidance.attention import AttentionMaps
from ..guidance.guide import Guide
from ..guidance.settings import GuidanceSettings
from ..guidance.words import mixed_prompt, subjects_in, words_of
from ..memory import rows_that_fit, too_many_rows
from ..plan import PassPlan, Row
from .a1111_model import model_parts, update_weights
from .a1111_prompts import Conditioning, EncodedRows
from .a1111_tokens import Tokens


def check_can_guide() -> None:
    """Raises `SciArtError` where the host's settings or model leave no room for guidance."""
    if shared.cmd_opts.lowvram:
        raise SciArtError("compose", "contrastive needs the whole UNet on the device: it cannot work with --lowvram; "
                                     "accepted: merge, or --medvram")
    if shared.sd_model.cond_stage_key == "edit":
        raise SciArtError("compose", "contrastive does not work with InstructPix2Pix models; accepted: merge")
    if shared.sd_model.model.conditioning_key == "crossattn-adm":
        raise SciArtError("compose", "contrastive does not work with unCLIP models; accepted: merge")


@dataclass(frozen=True)
class Evaluation:
    """What the host's denoiser is called with."""

    x: Tensor
    sigma: Tensor
    cond: object
    cond_scale: float
    image_cond: Tensor

    @staticmethod
    def of(given: Mapping[str, object]) -> Evaluation:
        """From the denoiser's arguments by name, of which it has more."""
        return Evaluation(**{field.name: given[field.name] for field in fields(Evaluation)})


class GuidedPass:
    """Guidance of one call of a sampler, on the model that is loaded now; its hooks last until `stack` closes."""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, settings: GuidanceSettings, encoded: EncodedRows):
        self.denoiser = sampler.model_wrap_cfg
        self.encoded = encoded
        self.rows = len(plan.rows())
        self.progress = 0.0
        self.alphas = shared.sd_model.alphas_cumprod
        self.sigmas = ((1 - self.alphas) / self.alphas).sqrt()
        self.is_vp = isinstance(sampler, sd_samplers_timesteps.CompVisSampler)
        tokens = Tokens(shared.sd_model)
        subjects = subjects_in(plan)
        self.schedules = [self._scheduled(prompt, mixed_prompt(subjects, prompt)) for prompt in encoded.prompts]
        unet = model_parts(shared.sd_model)["unet"]
        # the built-in Lora extension must not find weights of ours, or update its own with gradients on
        for target in unet.layers.values():
            update_weights(target.updated_by)
        maps = stack.enter_context(AttentionMaps(unet.root, unet.layers))
        self.guide = Guide(settings, maps, subjects, [plan.loras[k].region for k in plan.subjects], by_image=True)
        self.words = functools.lru_cache(maxsize=None)(
            lambda prompt, mixed: words_of(plan, prompt, mixed, tokens.of_words, tokens.chunks))
        for texts in {texts for schedule in self.schedules for _, texts in schedule}:
            self.words(*texts)  # what is not in the prompt is refused now, not at the step where it is missing

    def follow(self, before: GuidedPass) -> None:
        """Goes on where the refiner took over: with the masks of the model before, and its losses."""
        self.guide.masks, self.guide.first = before.guide.masks, before.guide.first
        self.guide.alike, self.guide.losses = before.guide.alike, before.guide.losses
        self.begin(before.progress)

    def begin(self, progress: float) -> None:
        """To be called before each evaluation: how far the pass is, and the prompts of this moment."""
        self.progress = progress
        self.guide.words = [self.words(*texts) for texts in self._texts()]

    def needed(self) -> Conditioning:
        """What the evaluation is to be called with: where the subjects' own rows do not count, the mixture's alone."""
        return self.encoded.joined if self.guide.is_fusing(self.progress) else self.encoded.mixture

    def update(self, now: Evaluation, step: int, steps: int, set_gates: Callable[[Sequence[Row], float], None]) -> None:
        """Finds the masks before the first step (0-based); updates the sampler's own latent in place, as often as this
        step wants it.

        The step size is that of the model's input: k-diffusion's latent is larger by √(σ² + 1).
        set_gates(rows, progress): of every image, for the next call.
        """
        scale = 1.0 if self.is_vp else (now.sigma.square() + 1).sqrt().view(-1, 1, 1, 1)
        start = int(now.sigma[0]) if self.is_vp else int((self.sigmas - now.sigma[0].item()).abs().argmin())
        self.guide.look_ahead(now.x / scale, start, self.alphas, functools.partial(self._denoised, now, set_gates))
        times = self.guide.times(step, steps)
        if times:
            plain = self._model(self.encoded.plain, now.sigma, now.image_cond)

            def call(inputs: Tensor) -> None:
                set_gates([Row(plain=True)], self.progress)
                plain(inputs * scale)

            now.x.copy_(self.guide.update(now.x / scale, self.progress, times, call) * scale)
        if step + 1 == steps:
            self.guide.watch(self.progress)

    def combine(self, original: Callable, x_out: Tensor, conds_list, uncond, cond_scale: float) -> Tensor:
        """In place of the host's own joining of AND parts: CFG of each row, then the rows by their weights."""
        self.guide.evaluated()
        if not self.guide.is_fusing(self.progress):
            return original(x_out, conds_list, uncond, cond_scale)
        weights = self.guide.weights(tuple(x_out.shape[-2:]), self.progress).to(x_out).unsqueeze(2)
        images = len(conds_list)
        rows = x_out[:-images].unflatten(0, (images, -1))
        cond, without, negative = rows[:, :-1], x_out[-images:].unsqueeze(1), rows[:, -1:]
        without = torch.cat([without, negative.expand_as(cond[:, 1:])], 1)
        return (weights * (without + (cond - without) * cond_scale)).sum(1)

    def too_many(self, now: Evaluation, rows: int, set_gates: Callable[[Sequence[Row], float], None]) -> SciArtError:
        """The refusal of an evaluation that has not fitted in memory with so many rows in a call; finds out what would.
        """
        images = len(self.schedules)

        def call(count: int) -> None:
            set_gates([Row(plain=True)], self.progress)
            plain = Conditioning(self.encoded.plain.shape, self.encoded.plain.batch[:1] * count)
            x, sigma, image = (tensor[:1].expand(count, *tensor.shape[1:])
                               for tensor in (now.x, now.sigma, now.image_cond))
            self._model(plain, sigma, image)(x)

        with torch.no_grad():
            fitting = rows_that_fit(call, rows)
        each, merged = (self.rows, images * 2) if shared.opts.batch_cond_uncond else (1, images)
        ways_out = [(images, "the setting `Batch cond/uncond` off"), (merged, "compose merge")]
        if self.encoded.hires_steps is not None:
            ways_out.append((merged, "guidance.hires false"))
        return too_many_rows(rows, fitting, images, each, ways_out)

    def _denoised(self, now: Evaluation, set_gates: Callable[[Sequence[Row], float], None], inputs: Tensor, time: int,
                  progress: float) -> Tensor:
        """What the plain row and its negative prompt make of variance preserving latents at a training time."""
        alpha = float(self.alphas[time])
        scale = 1.0 if self.is_vp else alpha**-0.5
        sigma = inputs.new_full((len(inputs),), float(time) if self.is_vp else float(self.sigmas[time]))
        set_gates([Row(plain=True)], progress)
        cond = self._model(self.encoded.plain, sigma, now.image_cond)(inputs * scale)
        if now.cond_scale != 1:
            set_gates([Row(uncond=True, plain=True)], progress)
            without = self._model(self.encoded.negative, sigma, now.image_cond)(inputs * scale)
            cond = without + now.cond_scale * (cond - without)
        return (inputs - (1 - alpha) ** 0.5 * cond) / alpha**0.5 if self.is_vp else cond

    def _model(self, conditioning: Conditioning, sigma: Tensor, image: Tensor) -> Callable[[Tensor], Tensor]:
        """The host's inner model on latents (images, …), with one part of the conditioning for each."""
        _, text = prompt_parser.reconstruct_multicond_batch(conditioning, self.denoiser.step)
        given = {**(text if isinstance(text, dict) else {"c_crossattn": [text]}), "c_concat": [image]}
        return lambda x: self.denoiser.inner_model(x, sigma, cond=given)

    def _scheduled(self, *prompts: str) -> list[tuple[int, tuple[str, ...]]]:
        """(last step, what each of the prompts then is): prompt editing changes them on the way."""
        schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
            list(prompts), self.encoded.steps, self.encoded.hires_steps, shared.opts.use_old_scheduling)
        ends = sorted({end for schedule in schedules for end, _ in schedule})
        return [(end, tuple(_at(schedule, end) for schedule in schedules)) for end in ends]

    def _texts(self) -> list[tuple[str, ...]]:
        """Each image's prompt, as it was given and as the mixture's, at this evaluation."""
        return [_at(schedule, self.denoiser.step) for schedule in self.schedules]


def _at(schedule: Sequence[tuple[int, object]], step: int):
    """What a schedule of (last step, value) has at a step."""
    return next((value for end, value in schedule if step <= end), schedule[-1][1])
