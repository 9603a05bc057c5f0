"""Where a LoRA parts from the base model it has something to say: weights from their predictions (LoRAtorio, arXiv
2508.11624)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .fusion import Fusion, Weights

if TYPE_CHECKING:
    from ..recipe.composition import CompositionSettings


class ByDistance(Fusion):
    """The first pair of rows is the base model's, each other one a LoRA's."""

    def __init__(self, settings: CompositionSettings):
        self.settings = settings

    def weights(self, cond: Tensor, progress: float, noise: Callable[[Tensor], Tensor]) -> Weights:
        shares = distance_weights(noise(cond), self.settings.patch, self.settings.temperature)
        nothing = torch.zeros_like(shares[:, :1])
        recenter = self.settings.recenter
        return Weights(torch.cat([nothing, shares], 1),
                       torch.cat([nothing + recenter, (1 - recenter) * shares], 1))


def distance_weights(noise: Tensor, patch: int, temperature: float) -> Tensor:
    """Predicted noise (images, 1 + loras, c, h, w), the base model's first → each LoRA's share (images, loras, h, w):
    softmax over the LoRAs of (1 − cosine with the base model's) / temperature, the same all over a patch.
    """
    similar = patch_cosines(noise[:, 1:], noise[:, :1], patch)
    shares = ((1 - similar) / temperature).softmax(1)
    whole = shares[..., :, None, :, None].expand(*shares.shape[:-1], patch, -1, patch)  # repeat_interleave waits
    whole = whole.reshape(*shares.shape[:-2], patch * shares.shape[-2], patch * shares.shape[-1])
    return whole[..., :noise.shape[-2], :noise.shape[-1]]


def patch_cosines(a: Tensor, b: Tensor, patch: int) -> Tensor:
    """Cosines of (images, n, c, h, w) with (images, n or 1, c, h, w) in patches of so many pixels a side, those at the
    right and at the bottom perhaps smaller: (images, n, patches down, patches across), float32."""
    def product(one: Tensor, other: Tensor) -> Tensor:
        return F.avg_pool2d((one * other).sum(2), patch, ceil_mode=True)

    a, b = a.float(), b.float()
    norms = (product(a, a) * product(b, b)).sqrt()
    return product(a, b) / norms.clamp(min=1e-12)
