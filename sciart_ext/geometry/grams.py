"""Gram matrices of one layer's factors: all that the geometry of its deltas needs, whatever the layer's width.

With ΔW_k = B_k A_k the inner products, singular values and singular subspaces of the deltas depend on the factors only
through BᵢᵀBⱼ and AᵢAⱼᵀ, ranks × ranks each. So a layer is read once, and nothing of its size is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..lora.kinds import LowRank


class Grams(NamedTuple):
    """Of a layer's deltas stacked by rank, float64 (Σ rank, Σ rank); where each of them lies; each one's scale is
    within `down`."""

    up: Tensor
    """BᵢᵀBⱼ"""
    down: Tensor
    """AᵢAⱼᵀ, both with their scales"""
    parts: tuple[slice, ...]


def grams(deltas: Sequence[LowRank | None]) -> Grams:
    """Of the deltas of one layer; None: a LoRA that does not reach it has rank 0. Raises ValueError where two deltas
    are not of one layer's shape."""
    given = [delta for delta in deltas if delta is not None]
    shapes = {(delta.up.shape[0], tuple(delta.down.shape[1:]) if delta.down.dim() == 4 else (delta.down.shape[1], 1, 1))
              for delta in given}
    if len(shapes) != 1:
        raise ValueError(f"deltas of one layer need one shape, got {sorted(shapes)}")
    up = torch.cat([delta.up.flatten(1) for delta in given], 1).double()
    down = torch.cat([delta.down.flatten(1) for delta in given]).double()
    parts, start = [], 0
    for delta in deltas:
        end = start + (delta.rank if delta is not None else 0)
        parts.append(slice(start, end))
        start = end
    scales = torch.cat([up.new_full((delta.rank,), delta.scale) for delta in given])
    return Grams(up.T @ up, (down @ down.T) * scales[:, None] * scales, tuple(parts))
