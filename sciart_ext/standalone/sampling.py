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
from ..guidance.masked import Watching, region_gates, token_gates
from ..memory import rows_that_fit, too_many_rows, unless_too_large
from ..mixer.mixer import Mixer
from ..mixer.refusal import too_large
from ..recipe import PassPlan, Row
from .prompts.syntax import held_at
from .samplers.levels import Predicted

if TYPE_CHECKING:
    from PIL import Image

    from ..guidance.layout import Layout
    from .prompts.encoding import Embeddings


@dataclass(frozen=True)
class PromptRow:
    """A row of the plan and what cross-attention reads in it, of all images or of each; several of one row, which AND
    joins, count by their weights.

    edits: (last evaluation, embeddings until then) of a prompt that changes; `embeddings` are the first of them.
    """

    row: Row
    embeddings: Embeddings
    weight: float = 1.0
    edits: tuple[tuple[int, Embeddings], ...] = ()

    def at(self, evaluation: int) -> Embeddings:
        """What is read at an evaluation, counted from 0."""
        return held_at(self.edits, evaluation) if self.edits else self.embeddings


class Time(NamedTuple):
    """One of the model's training times, as a number and as a tensor () where the UNet is."""

    number: float
    tensor: Tensor


class Rows:
    """A pipeline's UNet under a plan: all rows of all images in one call, where their texts are of one length, and
    their fusion to one prediction.

    rows: the plan's `encoded_rows`, in that order; of the first several where AND joins them. cfg_plus_plus: whether
    the sampler goes on from the prediction without prompt, at any CFG scale.
    """

    def __init__(self, pipe, mixer: Mixer, plan: PassPlan, rows: Sequence[PromptRow], cfg_scale: float,
                 size: tuple[int, int], cfg_plus_plus: bool = False):
        self.unet = pipe.unet
        self.alphas = pipe.scheduler.alphas_cumprod
        self.prediction_type = pipe.scheduler.config.prediction_type
        self.mixer = mixer
        self.plan = plan
        self.evaluation = 0
        """of the picture, counted from 0: prompts change by it"""
        in_order = [one for row in plan.rows() for one in rows if one.row == row]
        self.plain, self.plain_uncond = (next((one for one in rows if one.row == Row(uncond, plain=True)), None)
                                         for uncond in (False, True))
        self.cond = [one for one in in_order if not one.row.uncond]
        is_joined = any(one.weight != 1 for one in self.cond) or (len(self.cond) > 1 and not plan.own)
        needs_uncond = cfg_scale != 1 or cfg_plus_plus or is_joined
        self.uncond = [one for one in in_order if one.row.uncond] if needs_uncond else []
        """those of the plan's first pair in the end"""
        self.cfg_scale = cfg_scale
        self.size = size
        self._is_placed = False
        self.watching: tuple[Watching, ...] = ()
        """what records the attention besides"""
        self._time_ids = _time_ids(size, rows[0].embeddings)

    @property
    def differ(self) -> bool:
        """Whether the gates of LoRAs without masks differ between the rows of a call."""
        return len({one.row for one in self.cond}) > 1 or (bool(self.uncond) and self.plan.unmasked_rows_differ)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The LoRAs act on the UNet in this context, of one picture or one batch."""
        self.evaluation, self._is_placed = 0, False
        with self.mixer:
            yield

    def place(self, layout: Layout) -> None:
        """The LoRAs that have masks act from now on where the layout has their subjects."""
        if self.plan.masked and not self._is_placed:
            self.mixer.token_gates = token_gates(self.plan, layout.masks)
            self._is_placed = True

    def place_in_regions(self, feather: float, latents: torch.Size) -> None:
        """The LoRAs that share a row act from now on in their regions, in latents of this shape."""
        self.mixer.token_gates = region_gates(self.plan, feather, tuple(latents[-2:]), self.unet.device)
        self._is_placed = True

    def call(self, inputs: Tensor, time: Time, progress: float, rows: Sequence[PromptRow]) -> Tensor:
        """inputs (images, c, h, w), as the sampler scales them → predictions (rows, images, c, h, w), of their type."""
        read = [row.at(self.evaluation) for row in rows]
        lengths = [one.tokens.shape[1] for one in read]
        if len(set(lengths)) == 1:
            return self._call(inputs, time, progress, rows, read)
        found: list[Tensor | None] = [None] * len(rows)
        for length in dict.fromkeys(lengths):
            same = [number for number, its in enumerate(lengths) if its == length]
            predictions = self._call(inputs, time, progress, [rows[i] for i in same], [read[i] for i in same])
            for number, prediction in zip(same, predictions):
                found[number] = prediction
        return torch.stack(found)

    def _call(self, inputs: Tensor, time: Time, progress: float, rows: Sequence[PromptRow],
              read: Sequence[Embeddings]) -> Tensor:
        """The same of rows that read texts of one length."""
        images = len(inputs)
        self.set_gates([row.row for row in rows], progress, images)
        text = torch.cat([_of_each(one.tokens, images) for one in read])
        added = None
        if read[0].pooled is not None:
            pooled = torch.cat([_of_each(one.pooled, images) for one in read])
            added = {"text_embeds": pooled, "time_ids": self._time_ids.expand(len(pooled), -1)}
        called = inputs.to(text.dtype).repeat(len(rows), 1, 1, 1)
        found = self.unet(called, time.tensor, encoder_hidden_states=text, added_cond_kwargs=added).sample
        return found.to(inputs.dtype).unflatten(0, (len(rows), images))

    def set_gates(self, rows: Sequence[Row], progress: float, images: int) -> None:
        """For the next call, which has these rows of so many images, all images of a row together."""
        masked = self._is_placed and not any(row.plain for row in rows)
        views = list(range(images)) * len(rows) if masked else ()
        self.mixer.set_gates([own for row in rows for own in self.gates(progress, row, images)], views=views)

    def gates(self, progress: float, row: Row, images: int) -> list[tuple[float, ...]]:
        """One gate per LoRA, of each of so many images of this row."""
        return [self.plan.gates(progress, row)] * images

    def predict(self, inputs: Tensor, time: Time, progress: float, fusion: Fusion | None,
                cfg_factor: float = 1.0) -> Predicted:
        """The prediction after fusion; cfg_factor: of the CFG scale."""
        fusing = fusion is not None and fusion.is_fusing(progress)
        cond = self.cond[:1] if self.plan.own and not fusing else self.cond
        rows = [*cond, *(self.uncond if fusing else self.uncond[-1:])]
        found = self.call(inputs, time, progress, rows)
        self.evaluation += 1
        if not fusing:
            return self._joined([one.weight for one in cond], found, cfg_factor)
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
        without = [self.plain_uncond or self.uncond[0]] if self.uncond else []
        found = self.call(inputs, at, progress, [self.plain, *without])
        prediction, alpha = self._with_cfg(found[0], found[-1]).guided, float(self.alphas[time])
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * inputs - (1 - alpha) ** 0.5 * prediction
        return (inputs - (1 - alpha) ** 0.5 * prediction) / alpha**0.5

    def call_plain(self, inputs: Tensor, time: int, progress: float) -> None:
        """The plain row alone, of variance preserving latents at a training time."""
        self.call(inputs, Time(time, torch.full((), time, device=inputs.device)), progress, [self.plain])

    @torch.no_grad()
    def too_many(self, inputs: Tensor) -> SciArtError | None:
        """The refusal of these inputs (images, c, h, w), which have not fitted; finds out what would."""
        images, time, most = len(inputs), Time(0, torch.tensor(0, device=inputs.device)), self.mixer.rows_called
        # where subjects are may not be known yet
        tried = self.plain if self.plan.masked and self.plan.subjects else self.cond[0]

        def call(rows: int) -> Tensor:
            return self.call(inputs[:1], time, 0.0, [tried] * rows)

        if not self.plan.own:
            return too_large(self.mixer, call, images)
        each, merged = len(self.cond) + len(self.uncond), 2 if self.uncond else 1
        return too_many_rows(most, rows_that_fit(call, most), images, each, [(images * merged, "compose merge")])

    def _joined(self, weights: Sequence[float], found: Tensor, factor: float) -> Predicted:
        """One prediction of the parts that AND joins, the negative prompt's after them (arXiv 2206.01714)."""
        if list(weights) == [1]:
            return self._with_cfg(found[0], found[-1], factor)
        cond, uncond = found[:-1], found[-1]
        told = sum(weight * (one - uncond) for weight, one in zip(weights, cond))
        return Predicted(uncond + self.cfg_scale * factor * told, uncond)

    def _with_cfg(self, cond: Tensor, uncond: Tensor, factor: float = 1.0) -> Predicted:
        guided = uncond + self.cfg_scale * factor * (cond - uncond) if self.uncond else cond
        return Predicted(guided, uncond)


def _of_each(text: Tensor, images: int) -> Tensor:
    """What so many images read of a text (1, …) for all or (n, …) for n images: as often for each, one after another.
    """
    return text.expand(images, *text.shape[1:]) if len(text) == 1 else text.repeat_interleave(images // len(text), 0)


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
