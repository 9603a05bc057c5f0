"""A comparison as numbers for programs and as sentences for people."""

from __future__ import annotations

from itertools import combinations

from torch import Tensor

from .comparison import Comparison, LayerShared, Shared

DIGITS = 6


def as_data(comparison: Comparison) -> dict:
    """Plain JSON data: all together, by block, by layer, and the conflicts."""
    return {"loras": list(comparison.names),
            "whole": _shared(comparison.whole()),
            "blocks": {block: _shared(shared) for block, shared in comparison.blocks().items()},
            "layers": [_layer(layer) for layer in comparison.layers],
            "conflicts": [{**vars(conflict), "text": str(conflict)} for conflict in comparison.conflicts()]}


def in_words(comparison: Comparison) -> list[str]:
    """What the numbers say: each pair, how many more LoRAs fit, and the conflicts."""
    whole, names = comparison.whole(), comparison.names
    lines = []
    for a, b in combinations(range(len(names)), 2):
        overlaps = ", ".join(f"{float(matrix[a, b]):.2f} of the first {k}" for k, matrix in whole.overlaps.items())
        lines.append(f"{names[a]} and {names[b]}: cosine {float(whole.cosines[a, b]):+.3f}; directions shared: "
                     f"{overlaps}")
    if whole.superposition is not None:
        lines.append(f"together they change {whole.superposition:.2f} times as much as if they were orthogonal; "
                     f"of {int(whole.ranks.sum())} directions {whole.rank_of_sum} are left")
    return lines + [str(conflict) for conflict in comparison.conflicts()]


def _shared(shared: Shared) -> dict:
    return {"norms": _rounded(shared.norms), "cosines": _rounded(shared.cosines),
            "overlaps": {str(k): _rounded(matrix) for k, matrix in shared.overlaps.items()},
            "removed": _rounded(shared.removed), "chance": _rounded(shared.chance),
            "ranks": shared.ranks.tolist(), "rank_of_sum": shared.rank_of_sum, "superposition": shared.superposition}


def _layer(layer: LayerShared) -> dict:
    return {"name": layer.name, "block": layer.block, **_shared(layer),
            "spectra": [_rounded(values) for values in layer.spectra],
            "angles": {f"{a}-{b}": _rounded(angles) for (a, b), angles in layer.angles.items()}}


def _rounded(values: Tensor) -> list:
    return values.double().mul(10**DIGITS).round().div(10**DIGITS).tolist()
