"""Whether numbers are numbers, in little time and memory."""

from __future__ import annotations

import math

from torch import Tensor, isfinite

PIECE = 2**20
"""entries that are looked at at once"""


def is_finite(tensor: Tensor) -> bool:
    """Whether none is NaN or infinite. A sum that is neither has none among what it is of; one that is may be of large
    numbers, which are then looked at one by one."""
    return all(math.isfinite(piece.sum()) or bool(isfinite(piece).all()) for piece in tensor.flatten().split(PIECE))
