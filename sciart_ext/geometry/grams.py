"""Gram matrices of layers' factors: all that the geometry of their deltas needs, whatever the layers' width.

With ΔW_k = B_k A_k the inner products, singular values and singular subspaces of the deltas depend on the factors only
through BᵢᵀBⱼ and AᵢAⱼᵀ, ranks × ranks each. So a layer is read once, and nothing of its size is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..lora.low_rank import LowRank


class Grams(NamedTuple):
    """Of the deltas of layers, in each of which the LoRAs have the same ranks, stacked by rank: float64 (layers, Σ
    rank, Σ rank); where each LoRA lies; and the layers' outputs and inputs, (layers, 2). Scales are within `down`."""

    up: Tensor
    """BᵢᵀBⱼ"""
    down: Tensor
    """AᵢAⱼᵀ, both with their scales"""
    parts: tuple[slice, ...]
    shapes: Tensor


def layer_grams(deltas: Sequence[LowRank | None]) -> Grams:
    """Of the deltas of one layer; None: a LoRA that does not reach it has rank 0. Raises ValueError where two deltas
    are not of one layer's shape."""
    given = [delta for delta in deltas if delta is not None]
    shapes = {(delta.up.shape[0], tuple(delta.down.shape[1:]) if delta.down.dim() == 4 else (delta.down.shape[1], 1, 1))
              for delta in given}
    # kernels may be within the inputs, as LoHa has them
    if len({(out, math.prod(inputs)) for out, inputs in shapes}) != 1:
        raise ValueError(f"deltas of one layer need one shape, got {sorted(shapes)}")
    parts, start = [], 0
    for delta in deltas:
        end = start + (delta.rank if delta is not None else 0)
        parts.append(slice(start, end))
        start = end
    up = torch.empty(start, given[0].up.shape[0], dtype=torch.float64)
    down = torch.empty(start, given[0].down[0].numel(), dtype=torch.float64)
    scales = torch.empty(start, dtype=torch.float64)
    for part, delta in zip(parts, deltas):
        if delta is not None:
            up[part], down[part], scales[part] = delta.up.flatten(1).T, delta.down.flatten(1), delta.scale
    return Grams((up @ up.T)[None], ((down @ down.T) * scales[:, None] * scales)[None], tuple(parts),
                 torch.tensor([[up.shape[1], down.shape[1]]]))


def together(grams: Sequence[Grams]) -> Grams:
    """Of layers in which the LoRAs have the same ranks."""
    return Grams(torch.cat([one.up for one in grams]), torch.cat([one.down for one in grams]), grams[0].parts,
                 torch.cat([one.shapes for one in grams]))
