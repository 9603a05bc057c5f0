"""Whether numbers are numbers, without memory for what says it of each."""

from __future__ import annotations

from torch import Tensor, isfinite

PIECE = 2**20
"""entries that are looked at at once"""


def is_finite(tensor: Tensor) -> bool:
    """Whether none is NaN or infinite."""
    return all(isfinite(piece).all() for piece in tensor.flatten().split(PIECE))
