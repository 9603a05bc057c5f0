"""The denoising loop on a diffusers pipeline: every row with its own prompt and gates, fused and perhaps guided."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..compose.fusion import Fusion, fused
from ..errors import SciArtError
from ..guidance.guide import Guide
from ..memory import rows_that_fit, too_many_rows
from ..mixer.mixer import Mixer
from ..plan import PassPlan, Row
from ..schedule import step_progress
from .samplers import alpha_at, sampler_step

if TYPE_CHECKING:
    from PIL import Image

    from .prompts import Embeddings


@dataclass(frozen=True)
class PromptRow:
    """A row of the plan and what cross-attention reads in it: of all images, or of each."""

    row: Row
    embeddings: Embeddings


class Rows:
    """A pipeline's UNet under a plan: all rows of all images in one call, and their fusion to one prediction.

    rows: the plan's `encoded_rows`, in that order.
    """

    def __init__(self, pipe, mixer: Mixer, plan: PassPlan, rows: Sequence[PromptRow], cfg_scale: float,
                 size: tuple[int, int]):
        self.unet = pipe.unet
        self.alphas = pipe.scheduler.alphas_cumprod
        self.prediction_type = pipe.scheduler.config.prediction_type
        self.mixer = mixer
        self.plan = plan
        by_row = {row.row: row for row in rows}
        self.plain = by_row.get(Row(plain=True))
        self.cond = [by_row[row] for row in plan.rows() if not row.uncond]
        self.uncond = [by_row[row] for row in plan.rows() if row.uncond] if cfg_scale > 1 else []
        """those of the plan's first pair in the end"""
        self.cfg_scale = cfg_scale
        self.size = size

    @property
    def differ(self) -> bool:
        """Whether the gates differ between the rows of a call."""
        return len(self.cond) > 1 or (bool(self.uncond) and self.plan.rows_differ)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The LoRAs act on the UNet in this context."""
        with self.mixer:
            yield

    def call(self, inputs: Tensor, time: Tensor, progress: float, rows: Sequence[PromptRow]) -> Tensor:
        """inputs (images, c, h, w), as the scheduler scales them → predictions (rows, images, c, h, w)."""
        images = len(inputs)
        self.mixer.set_gates([self.gates(progress, row.row, image) for row in rows for image in range(images)])
        text = torch.cat([row.embeddings.tokens.expand(images, -1, -1) for row in rows])
        added = None
        if rows[0].embeddings.pooled is not None:
            pooled = torch.cat([row.embeddings.pooled.expand(images, -1) for row in rows])
            width, height = self.size
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=pooled.dtype, device=pooled.device)
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
        called = inputs.repeat(len(rows), 1, 1, 1)
        return self.unet(called, time, encoder_hidden_states=text, added_cond_kwargs=added).sample.unflatten(
            0, (len(rows), images))

    def gates(self, progress: float, row: Row, image: int) -> tuple[float, ...]:
        """One gate per LoRA in this row of this image."""
        return self.plan.gates(progress, row)

    def predict(self, inputs: Tensor, time: Tensor, progress: float, fusion: Fusion | None) -> Tensor:
        """The prediction (images, c, h, w) after fusion and classifier-free guidance."""
        fusing = fusion is not None and fusion.is_fusing(progress)
        rows = [*self.cond, *self.uncond] if fusing else [self.cond[0], *self.uncond[-1:]]
        found = self.call(inputs, time, progress, rows)
        if fusion is not None:
            fusion.evaluated()
        if not fusing:
            return self._with_cfg(found[0], found[-1])
        pairs, by_row = self.plan.pairs(), {row.row: one for row, one in zip(rows, found)}
        cond = torch.stack([by_row[pair.cond] for pair in pairs], 1)
        uncond = torch.stack([by_row[pair.uncond] for pair in pairs], 1) if self.uncond else cond
        weights = fusion.weights(cond, progress, functools.partial(self._noise, inputs, time))
        return self._with_cfg(*fused(cond, uncond, weights))

    def _noise(self, inputs: Tensor, time: Tensor, predictions: Tensor) -> Tensor:
        """Predicted noise of the model's predictions (images, pairs, c, h, w), up to a factor."""
        if self.prediction_type != "v_prediction":
            return predictions
        alpha = alpha_at(self.alphas, float(time))
        return alpha**0.5 * predictions + (1 - alpha) ** 0.5 * inputs.unsqueeze(1)

    def denoised(self, inputs: Tensor, time: int, progress: float) -> Tensor:
        """What the plain row alone makes of variance preserving latents at a training time: they without noise."""
        at = torch.tensor(time, device=inputs.device)
        found = self.call(inputs, at, progress, [self.plain, *self.uncond[:1]])
        prediction, alpha = self._with_cfg(found[0], found[-1]), float(self.alphas[time])
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * inputs - (1 - alpha) ** 0.5 * prediction
        return (inputs - (1 - alpha) ** 0.5 * prediction) / alpha**0.5

    @torch.no_grad()
    def too_many(self, inputs: Tensor) -> SciArtError:
        """The refusal of all rows of these inputs (images, c, h, w), which have not fitted; finds out what would."""
        images, time, most = len(inputs), torch.tensor(0, device=inputs.device), self.mixer.rows_called
        fitting = rows_that_fit(lambda rows: self.call(inputs[:1].expand(rows, -1, -1, -1), time, 0.0, self.cond[:1]),
                                most)
        each, merged = len(self.cond) + len(self.uncond), 2 if self.uncond else 1
        return too_many_rows(most, fitting, images, each, [(images * merged, "compose merge")])

    def _with_cfg(self, cond: Tensor, uncond: Tensor) -> Tensor:
        return uncond + self.cfg_scale * (cond - uncond) if self.uncond else cond


@torch.no_grad()
def denoise(scheduler, rows: Rows, noise: Tensor, generators: Sequence[torch.Generator], fusion: Fusion | None = None,
            on_step: Callable[[int, int], None] | None = None,
            watch: Callable[[Tensor], None] | None = None) -> Tensor:
    """Latents (images, c, h, w) from unit noise; generators: of each image, for the noise that samplers add.

    on_step(done, steps): progress; watch(latents): at the start and after each step.
    """
    steps = rows.plan.steps
    guide = fusion if isinstance(fusion, Guide) else None
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    takes = inspect.signature(scheduler.step).parameters
    options = {"generator": list(generators)} if "generator" in takes else {}
    if watch is not None:
        watch(latents)
    for evaluation, time in enumerate(scheduler.timesteps):
        step = sampler_step(evaluation, scheduler.order)
        progress = step_progress(step, steps)
        inputs = scheduler.scale_model_input(latents, time)
        if guide is not None:
            guide.look_ahead(inputs, round(float(time)), rows.alphas, rows.denoised)
            if evaluation == step * scheduler.order:
                times = guide.times(step, steps)
                call = functools.partial(rows.call, time=time, progress=progress, rows=[rows.plain])
                updated = guide.update(inputs, progress, times, call)
                if times:
                    latents = latents + (updated - inputs) / scheduler.scale_model_input(torch.ones_like(latents), time)
                    inputs = updated
            if evaluation + 1 == len(scheduler.timesteps):
                guide.watch(progress)
        prediction = rows.predict(inputs, time, progress, fusion)
        latents = scheduler.step(prediction, time, latents, **options).prev_sample
        last = evaluation + 1 == len(scheduler.timesteps)
        if last or sampler_step(evaluation + 1, scheduler.order) > step:
            if watch is not None:
                watch(latents)
            if on_step is not None:
                on_step(step + 1, steps)
    return latents


@torch.no_grad()
def decode(pipe, latents: Tensor) -> list[Image.Image]:
    """The pictures of latents (images, c, h, w). SDXL's autoencoder overflows in half precision: it says so itself."""
    vae = pipe.vae
    dtype = vae.dtype
    upcast = dtype == torch.float16 and vae.config.force_upcast
    try:
        if upcast:
            vae.to(torch.float32)
        decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
    finally:
        if upcast:
            vae.to(dtype)
    return pipe.image_processor.postprocess(decoded, output_type="pil")
