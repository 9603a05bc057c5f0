"""Contrastive guidance of one batch: the update of its latents and the fusion of its rows (METHOD of CLoRA)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..recipe import GuidanceSettings
from ..schedule import step_progress
from .attention import AttentionMaps
from .loss import contrastive_loss
from .masks import fusion_weights, masks_from_attention, resized
from .words import Words


class Guide:
    """Guides one batch of images, each with `rows` rows of its prompts, base row first.

    The model is called with all these rows first, then with the negative prompt's. by_image: whether all rows of one
    image follow one another, or all images of one row.
    """

    def __init__(self, settings: GuidanceSettings, maps: AttentionMaps, rows: int, by_image: bool = False):
        self.settings = settings
        self.maps = maps
        self.rows = rows
        self.by_image = by_image
        self.words: list[Words] = []
        """of each image; where the prompt changes on the way, of the prompt now"""
        self.losses: list[list[float]] = []
        """of every update, per image"""

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
        return self._each(lambda maps, words: contrastive_loss(
            words.pick(maps).flatten(-2), words.subjects, self.settings.temperature))

    def masks(self) -> Tensor:
        """Where each subject is, by its own row's maps recorded last: bool (images, subjects, h, w)."""
        def of_images(maps: Tensor, words: Words) -> Tensor:
            picked = words.pick(maps)
            own = [(words.subjects == k) & (words.rows == k + 1) for k in range(self.rows - 1)]
            return torch.stack([masks_from_attention(picked[:, chosen], self.settings.mask_threshold)
                                for chosen in own], 1)

        return self._each(of_images)

    def _each(self, function: Callable[[Tensor, Words], Tensor]) -> Tensor:
        """function(maps of images, their words) for all images with the same words at once, in the images' order."""
        maps = self.attention()
        groups: dict[int, list[int]] = {}
        for image, words in enumerate(self.words):
            groups.setdefault(id(words), []).append(image)
        found = torch.cat([function(maps[chosen], self.words[chosen[0]]) for chosen in groups.values()])
        order = [image for chosen in groups.values() for image in chosen]
        return found[torch.tensor(order).argsort()]

    def gradient(self, inputs: Tensor, predict: Callable[[Tensor], object]) -> tuple[Tensor, Tensor]:
        """Losses (images,) and their gradient with respect to the model's input (images, c, h, w).

        predict: calls the model with the prompts' rows.
        """
        self.maps.record(self.rows * len(inputs))
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            with self.maps.stopping():
                predict(inputs)
            loss = self.loss()
            gradient = torch.autograd.grad(loss.sum(), inputs)[0]
        return loss.detach(), gradient

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

    def record(self) -> None:
        """To be called before each evaluation: what `weights` needs of it is recorded, and nothing else."""
        self.maps.record(self.rows * len(self.words) if self.settings.masks else 0)

    def weights(self, size: tuple[int, int]) -> Tensor:
        """Fusion weights (images, rows, h, w) from the maps recorded last."""
        if not self.settings.masks:
            return fusion_weights(torch.ones(len(self.words), self.rows - 1, *size))
        return fusion_weights(resized(self.masks(), size))
