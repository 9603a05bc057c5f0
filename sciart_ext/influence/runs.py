"""A counterfactual run: the same picture with another set of its LoRAs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """What came of a set of LoRAs: latents (steps + 1, c, h, w), float32, from the noise on; the picture (h, w, 3),
    uint8; words (words, h, w), float32: how much each pixel of the latents' grid looked at some words of the prompt;
    noise: the number of the noise that it begins with, where one was chosen (`guidance.noises`)."""

    trajectory: Tensor
    picture: np.ndarray
    words: Tensor | None = None
    noise: int | None = None
