"""Where each LoRA's prediction counts: masks from attention maps, and their fusion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masks_from_attention(maps: Tensor, threshold: float) -> Tensor:
    """maps (…, words, h, w) → bool (…, h, w): where any word's attention reaches `threshold` of its largest.

    A word that is looked at nowhere covers nothing.
    """
    peak = maps.amax((-2, -1), keepdim=True)
    return ((maps >= threshold * peak) & (peak > 0)).any(-3)


def fusion_weights(masks: Tensor) -> Tensor:
    """masks (…, subjects, h, w), 0 to 1 → weights (…, 1 + subjects, h, w) of the base row and each subject's row.

    They sum to 1 everywhere: overlapping masks share by their values, what no mask covers is the base row's.
    """
    masks = masks.float()
    covered = masks.sum(-3, keepdim=True)
    base = (1 - covered).clamp(min=0)
    return torch.cat([base, masks / covered.clamp(min=1)], -3)


def resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """masks (…, subjects, h, w) brought to the latent's (h, w) by nearest neighbour, as floats."""
    flat = masks.float().reshape(1, -1, *masks.shape[-2:])
    return F.interpolate(flat, size, mode="nearest").view(*masks.shape[:-2], *size)
