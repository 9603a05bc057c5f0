"""What our own routes ask of a run: a recipe, and to be told what happened; or other sets of its LoRAs.

It is the script's argument in place of the recipe; over HTTP nobody can send one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...guidance.noises import SharedNoise
from ...influence.word_maps import WordMaps
from ...recipe import PassPlan


@dataclass
class Asked:
    """recipe: JSON data; stop(): whether it was cancelled."""

    recipe: dict
    stop: Callable[[], bool] = lambda: False
    processed: Any = None
    """what the host has made, as it hands it on"""
    interrupted: bool = False
    jobs: int = 0
    """of the host's, that it was made in"""

    def plans(self, plan: PassPlan, images: int) -> list[PassPlan]:
        """Of each image."""
        return [plan] * images

    def of_image(self, image: int) -> Asked:
        """For a run that repairs this image: the same LoRAs act; what happens there is not wanted."""
        return Asked(self.recipe, self.stop)


@dataclass
class Watched(Asked):
    """sets: of each image of the batch, the LoRAs that act, by their bits; words: whose attention is wanted; batch,
    batches: which of how many, for the progress."""

    sets: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    noise: SharedNoise = field(default_factory=SharedNoise)
    """that all of them begin with"""
    batch: int = 0
    batches: int = 1
    latents: list[Tensor] = field(default_factory=list)
    """of the first pass: before each step and after the last, (images, c, h, w), float32, where they were made"""
    word_maps: list[WordMaps] = field(default_factory=list)
    """of each model that took part"""
    pictures: list[np.ndarray] = field(default_factory=list)

    def plans(self, plan: PassPlan, images: int) -> list[PassPlan]:
        """Of each image: the plan with the LoRAs silent that are not in its set."""
        return [plan.with_only(one) for one in self.sets]

    def of_image(self, image: int) -> Watched:
        """For a run that repairs this image: the same LoRAs act; what happens there is not wanted."""
        return Watched(self.recipe, self.stop, sets=(self.sets[image],), batch=self.batch, batches=self.batches)

    def see(self, latents: Tensor) -> None:
        """Keeps latents of the first pass."""
        self.latents.append(latents.detach().to(torch.float32, copy=True))

    def trajectories(self) -> Tensor:
        """(images, steps + 1, c, h, w)."""
        return torch.stack(self.latents, 1).cpu()

    def attention(self) -> Sequence[Tensor | None]:
        """(words, h, w) of each image; None where no words were asked for."""
        if not self.words:
            return [None] * len(self.sets)
        seen = [one for one in self.word_maps if one.calls]
        return list((sum(one.maps() * one.calls for one in seen) / sum(one.calls for one in seen)).cpu())
