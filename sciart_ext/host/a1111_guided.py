"""Contrastive guidance in the host: its rows are AND parts of the host's own batch, fused where the host joins them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from modules import prompt_parser, sd_samplers_timesteps, shared
from torch import Tensor

from ..errors import SciArtError
from ..guidance.attention import AttentionMaps
from ..guidance.guide import Guide
from ..guidance.words import Subject, Words, find_words, subjects_in
from ..plan import PassPlan
from ..recipe import GuidanceSettings
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


def own_prompts(subject: Subject, prompts: prompt_parser.SdConditioning) -> prompt_parser.SdConditioning:
    """The prompts of a subject's own row."""
    return prompt_parser.SdConditioning([subject.own_prompt(text) for text in prompts], copy_from=prompts)


class GuidedPass:
    """Guidance of one call of a sampler, on the model that is loaded now; its hooks last until `stack` closes."""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, settings: GuidanceSettings, prompts: Sequence[str],
                 steps: int, hires_steps: int | None):
        self.denoiser = sampler.model_wrap_cfg
        self.plan = plan
        self.rows = 1 + len(plan.subjects)
        self.is_vp = isinstance(sampler, sd_samplers_timesteps.CompVisSampler)
        self.subjects = subjects_in(plan)
        self.encoder = tokenizing_encoder(shared.sd_model)
        self.schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
            list(prompts), steps, hires_steps, shared.opts.use_old_scheduling)
        unet = model_parts(shared.sd_model)["unet"]
        # the built-in Lora extension must not find weights of ours, or update its own with gradients on
        for target in unet.layers.values():
            update_weights(target.updated_by)
        maps = stack.enter_context(AttentionMaps(unet.root, unet.layers))
        self.guide = Guide(settings, maps, self.rows, by_image=True)
        self.words = functools.lru_cache(maxsize=None)(self._words)
        for text in {text for schedule in self.schedules for _, text in schedule}:
            self.words(text)  # what is not in the prompt is refused now, not at the step where it is missing

    def begin(self) -> None:
        """To be called before each evaluation: the prompts of this moment, whose attention it will record."""
        self.guide.words = [self.words(text) for text in self._texts()]
        self.guide.record()

    def update(self, step: int, steps: int, progress: float, x: Tensor, sigma: Tensor, cond, image_cond: Tensor,
               set_gates: Callable[[], None]) -> None:
        """Updates the sampler's own latent x in place, as often as this step (0-based) wants it.

        The step size is that of the model's input: k-diffusion's latent is larger by √(σ² + 1).
        """
        times = self.guide.times(step, steps)
        if times:
            scale = 1.0 if self.is_vp else (sigma.square() + 1).sqrt().view(-1, 1, 1, 1)
            sigma_in, given = self._given(sigma, cond, image_cond)

            def call(inputs: Tensor) -> None:
                set_gates()
                self.denoiser.inner_model((inputs * scale).repeat_interleave(self.rows, 0), sigma_in, cond=given)

            x.copy_(self.guide.update(x / scale, progress, times, call) * scale)
            self.guide.record()

    def combine(self, original: Callable, x_out: Tensor, conds_list, uncond, cond_scale: float) -> Tensor:
        """In place of the host's own joining of AND parts: the rows by their weights, then CFG."""
        weights = self.guide.weights(tuple(x_out.shape[-2:])).to(x_out)
        images = len(conds_list)
        cond = x_out[:images * self.rows].unflatten(0, (images, self.rows))
        base = x_out[-images:]
        return base + ((weights.unsqueeze(2) * cond).sum(1) - base) * cond_scale

    def _given(self, sigma: Tensor, cond, image_cond: Tensor) -> tuple[Tensor, dict]:
        """Sigmas and conditioning of the prompts' rows, as the host's denoiser would give them to the model."""
        _, text = prompt_parser.reconstruct_multicond_batch(cond, self.denoiser.step)
        sigma, image = (value.repeat_interleave(self.rows, 0) for value in (sigma, image_cond))
        if shared.sd_model.model.conditioning_key == "crossattn-adm":
            return sigma, {"c_crossattn": [text], "c_adm": image}
        return sigma, {**(text if isinstance(text, dict) else {"c_crossattn": [text]}), "c_concat": [image]}

    def _texts(self) -> list[str]:
        """Each image's prompt at this evaluation: prompt editing changes it on the way."""
        return [next((text for end, text in schedule if self.denoiser.step <= end), schedule[-1][1])
                for schedule in self.schedules]

    def _words(self, prompt: str) -> Words:
        tokens = {text: self._tokens(text) for subject in self.subjects for text in (subject.words, subject.trigger)}
        prompts = [prompt, *(subject.own_prompt(prompt) for subject in self.subjects)]
        return find_words(self.subjects, tokens, [self._chunks(text) for text in prompts],
                          [f"loras[{k}].subject" for k in self.plan.subjects], re.findall(r"[\w-]+", prompt))

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
