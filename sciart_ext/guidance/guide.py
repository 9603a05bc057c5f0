"""Contrastive guidance of one batch: where its subjects are, the update of its latents, the fusion of its rows.

The loss and the rows are CLoRA's (arXiv 2403.19776). It takes the masks of each evaluation from that evaluation's own
maps, which in the first steps show little and later show what the rows have done to each other: a LoRA that swallows
the others covers them. Here they come from a look ahead, before any LoRA of a subject acts (README, "Steering").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..schedule import step_progress
from .attention import AttentionMaps
from .look_ahead import layouts
from .loss import contrastive_loss
from .masks import fusion_weights, masks_from_attention, resized, with_boxes
from .settings import GuidanceSettings
from .sheet import Seen
from .words import Words

LOSS_SCALES = (2.0**12, 2.0**6, 1.0)
"""powers of two: in single precision they change nothing"""


class Guide:
    """Guides one batch of images, each with `rows` rows of its prompts, base row first.

    The model is called with all these rows first, then with the negative prompt's. by_image: whether all rows of one
    image follow one another, or all images of one row. boxes: of each subject, or None where it is to be found.
    """

    def __init__(self, settings: GuidanceSettings, maps: AttentionMaps, boxes: Sequence[Sequence[float] | None],
                 by_image: bool = False):
        self.settings = settings
        self.maps = maps
        self.boxes = boxes
        self.rows = 1 + len(boxes)
        self.by_image = by_image
        self.words: list[Words] = []
        """of each image; where the prompt changes on the way, of the prompt now"""
        self.losses: list[list[float]] = []
        """of every update, per image"""
        self.masks: Tensor | None = None
        """where each subject is: bool (images, subjects, h, w) of the latents; None before the look ahead"""
        self.first: Tensor | None = None
        """attention from which the masks were taken (images, subjects, h, w), on its own grid"""
        self.last: Tensor | None = None
        """attention of the evaluation that was watched"""
        self._watching = False

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

    def attention(self) -> Tensor:
        """What was recorded last: (images, rows, h, w, tokens)."""
        images = len(self.words)
        found = self.maps.maps()
        if self.by_image:
            return found.unflatten(0, (images, self.rows))
        return found.unflatten(0, (self.rows, images)).transpose(0, 1)

    def loss(self) -> Tensor:
        """Of each image (images,), from the maps recorded last."""
        return self._by_words(self.attention(), lambda maps, words: contrastive_loss(
            words.pick(maps).flatten(-2), words.subjects, self.settings.temperature))

    def look_ahead(self, latents: Tensor, start: int, alphas: Tensor, predict: Callable[[Tensor, int, float], Tensor],
                   ) -> None:
        """Finds the masks where they are wanted and not known yet. Arguments: `layouts`'; predict calls the model with
        the base row of every image first."""
        if not self.settings.masks or self.masks is not None:
            return

        def recorded(latents: Tensor, time: int, progress: float) -> tuple[Tensor, Tensor]:
            self.maps.record(len(latents))
            return predict(latents, time, progress), self.maps.maps()

        size = tuple(latents.shape[-2:])
        if all(self.boxes):
            self.first = torch.zeros(len(latents), len(self.boxes), *size, device=latents.device)
            found = self.first.bool()
        else:
            self.first = self._by_words(layouts(latents, start, alphas, recorded),
                                        lambda maps, words: words.means(maps))
            found = resized(masks_from_attention(self.first, self.settings.mask_threshold), size)
        self.masks = with_boxes(found, self.boxes)

    def watch(self) -> None:
        """Keeps the attention of the next evaluation as `last`, where it is to be shown."""
        if self.settings.show and self.masks is not None:
            self._watching = True
            self.maps.record(self.rows * len(self.words))

    def seen(self) -> list[Seen]:
        """Of each image, what is to be shown; empty where nothing is."""
        if self.last is None:
            return []
        return [Seen(*image) for image in zip(self.first, self.last, self.masks)]

    def _by_words(self, maps: Tensor, function: Callable[[Tensor, Words], Tensor]) -> Tensor:
        """function(maps of images, their words) for all images with the same words at once, in the images' order."""
        groups: dict[int, list[int]] = {}
        for image, words in enumerate(self.words):
            groups.setdefault(id(words), []).append(image)
        found = torch.cat([function(maps[chosen], self.words[chosen[0]]) for chosen in groups.values()])
        order = [image for chosen in groups.values() for image in chosen]
        return found[torch.tensor(order).argsort()]

    def gradient(self, inputs: Tensor, predict: Callable[[Tensor], object]) -> tuple[Tensor, Tensor]:
        """Losses (images,) and their gradient with respect to the model's input (images, c, h, w).

        predict: calls the model with the prompts' rows. The loss is scaled on its way through the model, where half
        precision would lose small gradients (arXiv 1710.03740); by less where large ones overflow.
        """
        for scale in LOSS_SCALES:
            self.maps.record(self.rows * len(inputs))
            with torch.enable_grad():
                inputs = inputs.detach().requires_grad_()
                with self.maps.stopping():
                    predict(inputs)
                loss = self.loss()
                gradient = torch.autograd.grad(loss.sum() * scale, inputs)[0] / scale
            if gradient.isfinite().all():
                return loss.detach(), gradient
        raise RuntimeError(f"SciArt: the loss is {loss.tolist()}, its gradient not finite; try `--no-half`, or "
                           "guidance.strength 0")

    def update(self, inputs: Tensor, progress: float, times: int, predict: Callable[[Tensor], object]) -> Tensor:
        """The model's input after so many updates, each image's own until its loss is at the target."""
        for _ in range(times):
            loss, gradient = self.gradient(inputs, predict)
            self.losses.append(loss.tolist())
            going = loss > self.settings.target
            if not going.any():
                break
            inputs = inputs - self.step_size(progress) * gradient * going.view(-1, 1, 1, 1)
        return inputs

    def weights(self, size: tuple[int, int], progress: float) -> Tensor:
        """Fusion weights (images, rows, h, w) for latents of this (h, w)."""
        if self._watching:
            self._watching = False
            self.last = self._by_words(self.attention(), lambda maps, words: words.means(maps[:, 0]))
        if not self.settings.masks:
            return fusion_weights(torch.ones(len(self.words), self.rows - 1, *size))
        if self.masks is None:
            raise RuntimeError("SciArt: the look ahead, which finds the masks, has not been")
        return fusion_weights(self.masks, self.settings.opacity_at(progress))
