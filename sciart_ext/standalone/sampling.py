"""A diffusers pipeline's UNet under a plan: every row with its own prompt and gates, fused to one prediction."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..compose.fusion import Fusion, fused
from ..errors import SciArtError
from ..memory import rows_that_fit, too_many_rows, unless_too_large
from ..mixer.mixer import Mixer
from ..mixer.refusal import too_large
from ..recipe import PassPlan, Row
from .samplers.levels import Predicted

if TYPE_CHECKING:
    from PIL import Image

    from .prompts import Embeddings


@dataclass(frozen=True)
class PromptRow:
    """A row of the plan and what cross-attention reads in it: of all images, or of each."""

    row: Row
    embeddings: Embeddings


class Time(NamedTuple):
    """One of the model's training times, as a number and as a tensor () where the UNet is."""

    number: float
    tensor: Tensor


class Rows:
    """A pipeline's UNet under a plan: all rows of all images in one call, and their fusion to one prediction.

    rows: the plan's `encoded_rows`, in that order. cfg_plus_plus: whether the sampler goes on from the prediction
    without prompt, at any CFG scale.
    """

    def __init__(self, pipe, mixer: Mixer, plan: PassPlan, rows: Sequence[PromptRow], cfg_scale: float,
                 size: tuple[int, int], cfg_plus_plus: bool = False):
        self.unet = pipe.unet
        self.alphas = pipe.scheduler.alphas_cumprod
        self.prediction_type = pipe.scheduler.config.prediction_type
        self.mixer = mixer
        self.plan = plan
        by_row = {row.row: row for row in rows}
        self.plain = by_row.get(Row(plain=True))
        self.cond = [by_row[row] for row in plan.rows() if not row.uncond]
        self.uncond = [by_row[row] for row in plan.rows() if row.uncond] if cfg_scale != 1 or cfg_plus_plus else []
        """those of the plan's first pair in the end"""
        self.cfg_scale = cfg_scale
        self.size = size
        self._time_ids = _time_ids(size, rows[0].embeddings)

    @property
    def differ(self) -> bool:
        """Whether the gates differ between the rows of a call."""
        return len(self.cond) > 1 or (bool(self.uncond) and self.plan.rows_differ)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The LoRAs act on the UNet in this context."""
        with self.mixer:
            yield

    def call(self, inputs: Tensor, time: Time, progress: float, rows: Sequence[PromptRow]) -> Tensor:
        """inputs (images, c, h, w), as the sampler scales them → predictions (rows, images, c, h, w), of their type."""
        images = len(inputs)
        self.set_gates([row.row for row in rows], progress, images)
        text = torch.cat([row.embeddings.tokens.expand(images, -1, -1) for row in rows])
        added = None
        if rows[0].embeddings.pooled is not None:
            pooled = torch.cat([row.embeddings.pooled.expand(images, -1) for row in rows])
            added = {"text_embeds": pooled, "time_ids": self._time_ids.expand(len(pooled), -1)}
        called = inputs.to(text.dtype).repeat(len(rows), 1, 1, 1)
        found = self.unet(called, time.tensor, encoder_hidden_states=text, added_cond_kwargs=added).sample
        return found.to(inputs.dtype).unflatten(0, (len(rows), images))

    def set_gates(self, rows: Sequence[Row], progress: float, images: int) -> None:
        """For the next call, which has these rows of so many images, all images of a row together."""
        self.mixer.set_gates([self.gates(progress, row, image) for row in rows for image in range(images)])

    def gates(self, progress: float, row: Row, image: int) -> tuple[float, ...]:
        """One gate per LoRA in this row of this image."""
        return self.plan.gates(progress, row)

    def predict(self, inputs: Tensor, time: Time, progress: float, fusion: Fusion | None,
                cfg_factor: float = 1.0) -> Predicted:
        """The prediction after fusion; cfg_factor: of the CFG scale."""
        fusing = fusion is not None and fusion.is_fusing(progress)
        rows = [*self.cond, *self.uncond] if fusing else [self.cond[0], *self.uncond[-1:]]
        found = self.call(inputs, time, progress, rows)
        if fusion is not None:
            fusion.evaluated()
        if not fusing:
            return self._with_cfg(found[0], found[-1], cfg_factor)
        pairs, by_row = self.plan.pairs(), {row.row: one for row, one in zip(rows, found)}
        cond = torch.stack([by_row[pair.cond] for pair in pairs], 1)
        uncond = torch.stack([by_row[pair.uncond] for pair in pairs], 1) if self.uncond else cond
        weights = fusion.weights(cond, progress, functools.partial(self._noise, inputs, time))
        return self._with_cfg(*fused(cond, uncond, weights), cfg_factor)

    def _noise(self, inputs: Tensor, time: Time, predictions: Tensor) -> Tensor:
        """Predicted noise of the model's predictions (images, pairs, c, h, w), up to a factor."""
        if self.prediction_type != "v_prediction":
            return predictions
        alpha = alpha_at(self.alphas, time.number)
        return alpha**0.5 * predictions + (1 - alpha) ** 0.5 * inputs.unsqueeze(1)

    def denoised(self, inputs: Tensor, time: int, progress: float) -> Tensor:
        """What the plain row alone makes of variance preserving latents at a training time: they without noise."""
        at = Time(time, torch.full((), time, device=inputs.device))
        found = self.call(inputs, at, progress, [self.plain, *self.uncond[:1]])
        prediction, alpha = self._with_cfg(found[0], found[-1]).guided, float(self.alphas[time])
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * inputs - (1 - alpha) ** 0.5 * prediction
        return (inputs - (1 - alpha) ** 0.5 * prediction) / alpha**0.5

    @torch.no_grad()
    def too_many(self, inputs: Tensor) -> SciArtError | None:
        """The refusal of these inputs (images, c, h, w), which have not fitted; finds out what would."""
        images, time, most = len(inputs), Time(0, torch.tensor(0, device=inputs.device)), self.mixer.rows_called

        def call(rows: int) -> Tensor:
            return self.call(inputs[:1], time, 0.0, self.cond[:1] * rows)

        if not self.plan.own:
            return too_large(self.mixer, call, images)
        each, merged = len(self.cond) + len(self.uncond), 2 if self.uncond else 1
        return too_many_rows(most, rows_that_fit(call, most), images, each, [(images * merged, "compose merge")])

    def _with_cfg(self, cond: Tensor, uncond: Tensor, factor: float = 1.0) -> Predicted:
        guided = uncond + self.cfg_scale * factor * (cond - uncond) if self.uncond else cond
        return Predicted(guided, uncond)


def decode(pipe, latents: Tensor) -> list[Image.Image]:
    """The pictures of latents (images, c, h, w). Raises `SciArtError` where one does not fit in memory."""
    def refusal() -> SciArtError | None:
        return None if len(latents) > 1 else SciArtError(
            "width", "out of memory in the autoencoder, after the last step; accepted: a smaller picture")

    return unless_too_large(functools.partial(_decoded, pipe, latents), refusal)


@torch.no_grad()
def _decoded(pipe, latents: Tensor) -> list[Image.Image]:
    """SDXL's autoencoder overflows in half precision: it says so itself."""
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


def _time_ids(size: tuple[int, int], embeddings: Embeddings) -> Tensor | None:
    """What SDXL is told of the picture's size (1, 6): the original's, where it was cut, the target's; no other model
    is told any."""
    if embeddings.pooled is None:
        return None
    width, height = size
    return torch.tensor([[height, width, 0, 0, height, width]], dtype=embeddings.pooled.dtype,
                        device=embeddings.pooled.device)


def alpha_at(alphas: Tensor, time: float) -> float:
    """The cumulative α at a training time, which schedules by noise level put between two: linear in log σ there."""
    below = min(int(time), len(alphas) - 2)
    first, second = (math.log((1 - alpha) / alpha) for alpha in alphas[below:below + 2].tolist())
    return 1 / (1 + math.exp(first + (time - below) * (second - first)))
