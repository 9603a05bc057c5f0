"""Contrastive guidance of one batch: where its subjects are, the update of its latents, the fusion of its rows.

The loss, the rows and their fusion by masks are CLoRA's (arXiv 2403.19776), with three changes, each for what it gained
(docs/steer.md). CLoRA takes the masks of an evaluation from its own maps, which in the first steps show little and
later show what the rows have done to each other; here a look ahead finds them before any LoRA of a subject acts. CLoRA
moves the latents so that the rows' maps of different subjects part; here so that the subjects stay apart as the look
ahead saw them. Where no mask covers, CLoRA has the base model, which draws there without its LoRA what a mask missed;
here it is the mixture of all LoRAs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compose.fusion import Fusion, Weights, fusion_weights
from ..errors import SciArtError
from ..memory import unless_too_large
from ..mixer.gates import sent
from ..recipe.schedule import step_progress, weight_at
from .attention import AttentionMaps
from .layout import Layout
from .loss import contrastive_loss, pairs_of
from .offload import in_main_memory

if TYPE_CHECKING:
    from ..recipe.guidance import GuidanceSettings
    from .words import Subject, Words

LOSS_SCALES = (2.0**12, 2.0**6, 1.0)
"""powers of two: in single precision they change nothing"""


class Guide(Layout, Fusion):
    """Guides one batch of images, each with a row of the mixture's prompt, then each subject's own.

    The model is called with the mixture's rows first. by_image: whether all rows of one image follow one another, the
    own rows' negative prompt after those, or all images of one row. Other arguments: `Layout`'s.
    """

    def __init__(self, settings: GuidanceSettings, maps: AttentionMaps, subjects: Sequence[Subject],
                 boxes: Sequence[Sequence[float] | str | None], by_image: bool = False):
        super().__init__(settings, maps, subjects, boxes)
        self.by_image = by_image
        self.losses: list[list[float]] = []
        """of every update, per image"""
        self._alike_there: tuple[Tensor, Tensor] | None = None
        self._pairs_on = functools.lru_cache(maxsize=1)(functools.partial(pairs_of, [*range(len(boxes))] * 2))

    @property
    def must_look_ahead(self) -> bool:
        return super().must_look_ahead and bool(self.settings.masks or self.settings.strength)

    def _without_a_place(self) -> list[str]:
        """None: the mixture has every LoRA, all over the picture."""
        return []

    def _rows_until_mixtures(self, progress: float) -> int:
        return len(self.boxes) + 2 if self.by_image and self.is_fusing(progress) else 1

    def is_fusing(self, progress: float) -> bool:
        """Whether the subjects' own rows count at this progress; where not, the mixture's alone is needed."""
        return self.settings.masks and bool((self._opacities(self.alike, progress) > 0).any())

    def _opacities(self, alike: Tensor, progress: float) -> Tensor:
        """Of each image's subjects, as `alike`, on its device."""
        opacity, crowded = (weight_at(points, "linear", progress)
                            for points in (self.settings.opacity, self.settings.opacity_crowded))
        if len(self.boxes) > 2:
            return torch.full(alike.shape, crowded, device=alike.device)
        return torch.full(alike.shape, opacity, device=alike.device).masked_fill(alike, crowded)

    def times(self, step: int, steps: int) -> int:
        """How many updates come before this step (0-based) of so many."""
        progress = step_progress(step, steps)
        if not self.settings.strength or progress > self.settings.until:
            return 0
        before = step_progress(step - 1, steps) if step else -1.0
        return max([1, *(times for start, times in self.settings.refine.items() if before < float(start) <= progress)])

    def step_size(self, progress: float) -> float:
        """α of an update of the model's input: strength · √(1 → ½)."""
        return self.settings.strength * (1 - progress / 2) ** 0.5

    def loss(self) -> Tensor:
        """Of each image (images,), from the plain rows' maps recorded last: how far they are from what the look ahead
        saw. Each subject's map and what was seen of it are a positive pair, other subjects' are negative to both."""
        def of(maps: Tensor, words: Words, seen: Tensor) -> Tensor:
            found = words.plain_means(maps)
            seen = F.adaptive_avg_pool2d(seen.to(found), found.shape[-2:])  # of regions alone it is finer
            return contrastive_loss(torch.cat([found, seen], 1).flatten(-2), self._pairs_on(found.device),
                                    self.settings.temperature)

        return self._by_words(of, self.maps.maps(), self.first)

    def gradient(self, inputs: Tensor, predict: Callable[[Tensor], object]) -> tuple[Tensor, Tensor]:
        """Losses (images,), noted in `losses` too, and their gradient by the model's input (images, c, h, w).

        predict: calls the model with the plain row of every image. The loss is scaled on its way through the model,
        where half precision would lose small gradients (arXiv 1710.03740); by less where large ones overflow. Whether
        they did must be known before the next step, so each try waits for the device once, for that and the losses.
        """
        for scale in LOSS_SCALES:
            self.maps.record(len(inputs))
            saving = in_main_memory(self.maps.root.parameters()) if self.settings.offload else nullcontext()
            with torch.enable_grad(), saving:
                inputs = inputs.detach().requires_grad_()
                with self.maps.stopping():
                    predict(inputs)
                loss = self.loss()
                gradient = torch.autograd.grad(loss.sum() * scale, inputs)[0] / scale
            *losses, is_finite = torch.cat([loss.detach(), gradient.isfinite().all().to(loss)[None]]).tolist()
            if is_finite:
                self.losses.append(losses)
                return loss.detach(), gradient
        raise RuntimeError(f"SciArt: the loss is {losses}, its gradient not finite; try `--no-half`, or "
                           "guidance.strength 0")

    def update(self, inputs: Tensor, progress: float, times: int, predict: Callable[[Tensor], object]) -> Tensor:
        """The model's input after so many updates, each image's own until its loss is at the target."""
        for _ in range(times):
            loss, gradient = unless_too_large(functools.partial(self.gradient, inputs, predict),
                                              functools.partial(self._too_large, inputs.device.type))
            if not (torch.tensor(self.losses[-1], dtype=loss.dtype) > self.settings.target).any():
                break
            going = loss > self.settings.target
            inputs = inputs - self.step_size(progress) * gradient * going.view(-1, 1, 1, 1)
        return inputs

    def _too_large(self, device: str) -> SciArtError:
        offload = ["guidance.offload true"] if device != "cpu" and not self.settings.offload else []
        smaller = ["a smaller batch size"] if len(self.words) > 1 else []
        ways_out = [*offload, "0 (no updates)", *smaller, "a smaller picture"]
        return SciArtError("guidance.strength", "out of memory in the gradient that an update needs; accepted: "
                                                f"{', '.join(ways_out)}")

    def weights(self, cond: Tensor, progress: float, noise: Callable[[Tensor], Tensor]) -> Weights:
        if self.masks is None:
            raise RuntimeError("SciArt: the look ahead, which finds the masks, has not been")
        if self._alike_there is None or self._alike_there[0] is not self.alike:
            self._alike_there = self.alike, sent(self.alike, self.masks.device)
        weights = fusion_weights(self.masks, self._opacities(self._alike_there[1], progress))
        return Weights(weights, weights)
