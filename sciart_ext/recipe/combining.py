"""The recipe's `combine` and `combining`: how the deltas of several LoRAs are joined in weight space."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from ..errors import SciArtError, shown
from .schedule import check_number
from .schema import Field, Strict, validator

Method = Literal["linear", "orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune"]
METHODS: tuple[str, ...] = get_args(Method)


class CombiningSettings(Strict):
    """What the ways of combining other than linear go by; each reads those of its own."""

    density: float = Field(0.5, description="share of each LoRA's entries in each layer that is kept: the largest "
                                            "(ties, magnitude-prune) or random ones (dare-linear, dare-ties)")
    majority: Literal["total", "frequency"] = Field(
        "total", description="of ties and dare-ties, whose sign wins: that of the entries' sum, or of most LoRAs")
    seed: int = Field(0, description="of the entries that dare-linear and dare-ties keep")
    directions: int = Field(16, description="of orthogonal: how many of a LoRA's strongest directions in each layer "
                                            "the LoRAs of smaller weight leave to it")
    strength: float = Field(0.25, description="of orthogonal: how much of what lies in those directions they leave; "
                                              "0: nothing, which is linear; 1: all of it")

    @validator("density", pre=True)
    def _share(cls, value):
        return check_number(value, "", 0.01, 1.0)

    @validator("strength", pre=True)
    def _part(cls, value):
        return check_number(value, "", 0.0, 1.0)

    @validator("seed", pre=True)
    def _seed(cls, value):
        return _whole(value, 0, 2**32 - 1)

    @validator("directions", pre=True)
    def _directions(cls, value):
        return _whole(value, 1, 4096)


class Combination(NamedTuple):
    """A way of combining and its settings."""

    method: str
    settings: CombiningSettings


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SciArtError("", f"expected a whole number from {low} to {high}, got {shown(value)}")
    return value
