"""Predictions of several rows become one: each counts with a weight, the same everywhere or one for each place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Weights(NamedTuple):
    """How much each pair of rows counts: (images, pairs, h, w) or of a shape that spreads to it; sums over pairs are 1.
    """

    cond: Tensor
    uncond: Tensor


class Fusion:
    """One way to make one prediction of a plan's pairs of rows (`PassPlan.pairs`)."""

    def is_fusing(self, progress: float) -> bool:
        """Whether all pairs count at this progress; where not, only the first is evaluated."""
        return True

    def evaluated(self) -> None:
        """To be called after each evaluation of the model."""

    def weights(self, cond: Tensor, progress: float, noise: Callable[[Tensor], Tensor]) -> Weights:
        """cond: predictions of the rows with the prompt, (images, pairs, c, h, w); noise: makes predicted noise of
        such, up to a factor."""
        raise NotImplementedError


class Average(Fusion):
    """Every pair counts the same: Composite (arXiv 2402.16843, equation 4)."""

    def weights(self, cond: Tensor, progress: float, noise: Callable[[Tensor], Tensor]) -> Weights:
        same = torch.full((1, cond.shape[1], 1, 1), 1 / cond.shape[1], device=cond.device)
        return Weights(same, same)


def fused(cond: Tensor, uncond: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Predictions (images, pairs, c, h, w) with and without the prompt → (images, c, h, w) of each.

    Fused before classifier-free guidance, which is linear: guiding each pair first gives the same.
    """
    return tuple((weight.to(of).unsqueeze(2) * of).sum(1) for of, weight in
                 ((cond, weights.cond), (uncond, weights.uncond)))


def fusion_weights(masks: Tensor, opacity: float | Tensor = 1.0) -> Tensor:
    """masks (…, subjects, h, w), 0 to 1 → weights (…, 1 + subjects, h, w) of the mixture's row and each subject's.

    opacity: of all subjects, or of each (…, subjects), on the masks' device.

    They sum to 1 everywhere: overlapping masks share by their values, what no mask covers is the mixture's, as is
    1 − opacity of what they cover.
    """
    masks = masks.float()
    if isinstance(opacity, Tensor):
        opacity = opacity[..., None, None]
    own = opacity * masks / masks.sum(-3, keepdim=True).clamp(min=1)
    return torch.cat([1 - own.sum(-3, keepdim=True), own], -3)
