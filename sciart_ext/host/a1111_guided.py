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
from ..guidance.words import Subject, own_prompt, words_of
from ..plan import PassPlan, Row
from .a1111_model import model_parts, tokenizing_encoder, update_weights


def check_can_guide() -> None:
    """Raises `SciArtError` where the host's settings or model leave no room for guidance."""
    if shared.cmd_opts.lowvram:
        raise SciArtError("compose", "contrastive needs the whole UNet on the device: it cannot work with --lowvram; "
                                     "accepted: merge, or --medvram")
    if shared.sd_model.cond_stage_key == "edit":
        raise SciArtError("compose", "contrastive does not work with InstructPix2Pix models; accepted: merge")


def joined(parts: Sequence[prompt_parser.MulticondLearnedConditioning]) -> prompt_parser.MulticondLearnedConditioning:
    """The rows' conditionings as AND parts of one, per image: base row, then each subject's own."""
    if any(len(image) > 1 for part in parts for image in part.batch):
        raise SciArtError("compose", "contrastive does not work with AND in the prompt; accepted: merge")
    batch = [[part for image in images for part in image] for images in zip(*(part.batch for part in parts))]
    return prompt_parser.MulticondLearnedConditioning(parts[0].shape, batch)


def own_prompts(subject: Subject, subjects: Sequence[Subject],
                prompts: prompt_parser.SdConditioning) -> prompt_parser.SdConditioning:
    """The prompts of a subject's own row."""
    return prompt_parser.SdConditioning([own_prompt(subject, subjects, text) for text in prompts], copy_from=prompts)


@dataclass(frozen=True)
class Evaluation:
    """What the host's denoiser is called with."""

    x: Tensor
    sigma: Tensor
    uncond: object
    cond: object
    cond_scale: float
    image_cond: Tensor

    @staticmethod
    def of(given: Mapping[str, object]) -> Evaluation:
        """From the denoiser's arguments by name, of which it has more."""
        return Evaluation(**{field.name: given[field.name] for field in fields(Evaluation)})


def _is_unclip() -> bool:
    return shared.sd_model.model.conditioning_key == "crossattn-adm"


class GuidedPass:
    """Guidance of one call of a sampler, on the model that is loaded now; its hooks last until `stack` closes."""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, settings: GuidanceSettings, prompts: Sequence[str],
                 steps: int, hires_steps: int | None):
        self.denoiser = sampler.model_wrap_cfg
        self.plan = plan
        self.rows = 1 + len(plan.subjects)
        self.progress = 0.0
        self.alphas = shared.sd_model.alphas_cumprod
        self.sigmas = ((1 - self.alphas) / self.alphas).sqrt()
        self.is_vp = isinstance(sampler, sd_samplers_timesteps.CompVisSampler)
        self.encoder = tokenizing_encoder(shared.sd_model)
        self.schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
            list(prompts), steps, hires_steps, shared.opts.use_old_scheduling)
        unet = model_parts(shared.sd_model)["unet"]
        # the built-in Lora extension must not find weights of ours, or update its own with gradients on
        for target in unet.layers.values():
            update_weights(target.updated_by)
        maps = stack.enter_context(AttentionMaps(unet.root, unet.layers))
        self.guide = Guide(settings, maps, [plan.loras[k].region for k in plan.subjects], by_image=True)
        self.words = functools.lru_cache(maxsize=None)(
            lambda prompt: words_of(plan, prompt, self._tokens, self._chunks))
        for text in {text for schedule in self.schedules for _, text in schedule}:
            self.words(text)  # what is not in the prompt is refused now, not at the step where it is missing

    def follow(self, before: GuidedPass) -> None:
        """Goes on where the refiner took over: with the masks of the model before, and its losses."""
        self.guide.masks, self.guide.first = before.guide.masks, before.guide.first
        self.guide.losses = before.guide.losses
        self.begin(before.progress)

    def begin(self, progress: float) -> None:
        """To be called before each evaluation: how far the pass is, and the prompts of this moment."""
        self.progress = progress
        self.guide.words = [self.words(text) for text in self._texts()]

    def update(self, now: Evaluation, step: int, steps: int, set_gates: Callable[[Sequence[Row], float], None]) -> None:
        """Updates the sampler's own latent in place, as often as this step (0-based) wants it; finds the masks before
        the first.

        The step size is that of the model's input: k-diffusion's latent is larger by √(σ² + 1).
        set_gates(rows, progress): of every image, for the next call.
        """
        times = self.guide.times(step, steps)
        scale = 1.0 if self.is_vp else (now.sigma.square() + 1).sqrt().view(-1, 1, 1, 1)
        if times:
            prompts = self._cond(now, slice(None), now.sigma)

            def call(inputs: Tensor) -> None:
                set_gates([row for row in self.plan.rows() if not row.uncond], self.progress)
                prompts(inputs * scale)

            now.x.copy_(self.guide.update(now.x / scale, self.progress, times, call) * scale)
        start = int(now.sigma[0]) if self.is_vp else int((self.sigmas - now.sigma[0].item()).abs().argmin())
        self.guide.look_ahead(now.x / scale, start, self.alphas, functools.partial(self._denoised, now, set_gates))
        if step + 1 == steps:
            self.guide.watch()

    def combine(self, original: Callable, x_out: Tensor, conds_list, uncond, cond_scale: float) -> Tensor:
        """In place of the host's own joining of AND parts: the rows by their weights, then CFG."""
        weights = self.guide.weights(tuple(x_out.shape[-2:]), self.progress).to(x_out)
        images = len(conds_list)
        cond = x_out[:images * self.rows].unflatten(0, (images, self.rows))
        base = x_out[-images:]
        return base + ((weights.unsqueeze(2) * cond).sum(1) - base) * cond_scale

    def _denoised(self, now: Evaluation, set_gates: Callable[[Sequence[Row], float], None], inputs: Tensor, time: int,
                  progress: float) -> Tensor:
        """What the base row and the negative prompt make of variance preserving latents at a training time."""
        alpha = float(self.alphas[time])
        scale = 1.0 if self.is_vp else alpha**-0.5
        sigma = inputs.new_full((len(inputs),), float(time) if self.is_vp else float(self.sigmas[time]))
        set_gates([Row()], progress)
        cond = self._cond(now, slice(None, None, self.rows), sigma)(inputs * scale)
        if now.cond_scale != 1:
            set_gates([Row(uncond=True)], progress)
            without = self._uncond(now, sigma)(inputs * scale)
            cond = without + now.cond_scale * (cond - without)
        return (inputs - (1 - alpha) ** 0.5 * cond) / alpha**0.5 if self.is_vp else cond

    def _cond(self, now: Evaluation, rows: slice, sigma: Tensor) -> Callable[[Tensor], Tensor]:
        """The host's inner model with the prompts of these rows of every image."""
        _, text = prompt_parser.reconstruct_multicond_batch(now.cond, self.denoiser.step)
        text = {key: value[rows] for key, value in text.items()} if isinstance(text, dict) else text[rows]
        return self._model(text, sigma, now.image_cond)

    def _uncond(self, now: Evaluation, sigma: Tensor) -> Callable[[Tensor], Tensor]:
        """The same with the negative prompt; it has no image of unCLIP models."""
        text = prompt_parser.reconstruct_cond_batch(now.uncond, self.denoiser.step)
        return self._model(text, sigma, torch.zeros_like(now.image_cond) if _is_unclip() else now.image_cond)

    def _model(self, text, sigma: Tensor, image: Tensor) -> Callable[[Tensor], Tensor]:
        """The host's inner model on latents (images, …), with as many rows of each image as there are of the text."""
        repeats = len(text["crossattn"] if isinstance(text, dict) else text) // len(sigma)
        image, sigma = image.repeat_interleave(repeats, 0), sigma.repeat_interleave(repeats, 0)
        if _is_unclip():
            given = {"c_crossattn": [text], "c_adm": image}
        else:
            given = {**(text if isinstance(text, dict) else {"c_crossattn": [text]}), "c_concat": [image]}
        return lambda x: self.denoiser.inner_model(x.repeat_interleave(repeats, 0), sigma, cond=given)

    def _texts(self) -> list[str]:
        """Each image's prompt at this evaluation: prompt editing changes it on the way."""
        return [next((text for end, text in schedule if self.denoiser.step <= end), schedule[-1][1])
                for schedule in self.schedules]

    def _chunks(self, text: str) -> list[list[int]]:
        """Tokens by chunk, as the host lays them out; the vectors of an embedding get numbers of their own."""
        chunks = []
        for chunk in self.encoder.tokenize_line(text)[0]:
            tokens = list(chunk.tokens[1:-1])
            for fix in chunk.fixes:
                for i in range(fix.embedding.vectors):
                    tokens[fix.offset + i] = -hash((fix.embedding.name, i)) % 2**31 + 2**31
            chunks.append(tokens)
        return chunks

    def _tokens(self, text: str) -> list[int]:
        """The tokens of a few words, without the padding after them."""
        tokens = self._chunks(text)[0] if text else []
        while tokens and tokens[-1] == self.encoder.id_end:
            tokens.pop()
        return tokens
