"""Layers whose LoRAs are joined otherwise than by their sum:  W' = W + C(λ_1 ΔW_1, …, λ_n ΔW_n)  (`combine`).

What the files alone decide is found once; a change of gates costs what combining costs. Where rows differ, each
distinct row of gates has a C of its own, which is kept while it is used, as far as there is room (`kept.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from ..errors import SciArtError
from .fit import Factors
from .kept import Room
from .layer import Layer
from .orthogonal_layer import OrthogonalLayer
from .sparse_layer import SparseLayer
from .targets import Target
from .whole import Whole

if TYPE_CHECKING:
    from ..recipe.combining import Combination


def combined_layer(name: str, target: Target, deltas: Mapping[int, Factors | Whole], block_factors: dict[int, float],
                   combination: Combination, names: Mapping[int, str], room: Room,
                   untouched: Callable[[Target], torch.Tensor] | None = None) -> Layer:
    """One layer; names: of the LoRAs that reach it, by index. Vectors have no directions to leave: `orthogonal` adds
    them up. Raises `SciArtError` for deltas that the method does not take."""
    if combination.method != "orthogonal":
        return SparseLayer(name, target, deltas, block_factors, combination, names, room, untouched)
    if target.is_bias or target.is_norm:
        return Layer(name, target, deltas, block_factors, room, untouched)
    for k, item in deltas.items():
        if isinstance(item, Whole):
            raise SciArtError("combine", f"{names[k]} is {item.delta.kind}, whose changes have no thin factors; "
                                         "accepted: linear, ties, dare-linear, dare-ties, magnitude-prune")
    return OrthogonalLayer(name, target, deltas, block_factors, combination, room)
