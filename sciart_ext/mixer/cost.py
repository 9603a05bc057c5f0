"""What merging and branching cost, and which of the two each layer should use.

With T tokens a call, a weight of m × n and total rank R, a branch costs 2·T·R·(m+n) FLOP a call and touches
T·(2m+n+4R) numbers; a merge costs 2·R·m·n FLOP a change of gates and touches 4·m·n. A delta without thin factors is
computed at every change of gates where it is merged; where it branches at every call, and then multiplied: T·m·n more.

On a CPU both are a number of matrix elements times (2·R + k) with the same k, so the elements alone are compared. On a
GPU a kernel has to be launched, whatever it does, and memory is slow beside arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..lora.names import level_of

# Weights merged for constant gates serve the next pictures too, and on a GPU every product that a call is spared
# counts more than its arithmetic: they are charged as if no pass were shorter than this.
CONSTANT_CALLS = 1000
BRANCH_LAUNCHES, MERGE_LAUNCHES = 3, 0.2
"""of one layer; those of a merge are shared by a stack"""


class Rates(NamedTuple):
    """What a device takes for a launch, for each byte of memory, for each FLOP; any unit, the same for all three.

    branch_factor: of a branch beside a merge of as many elements.
    """

    launch: float
    byte: float
    flop: float
    branch_factor: float = 1.0


# Measured over the 192 layers of SD 1.5's UNet (2 CPU cores, float32, 1 to 16 LoRAs of rank 32, 256² and 512²): branch
# factors of 0.7 to 1.0 choose best in all cases, 2.0 costs 5 to 10 % more.
CPU = Rates(launch=0.0, byte=0.0, flop=1.0)
# Seconds, of a usual card of 2022: 6 µs of Python and driver a launch, 600 GB/s, 50 TFLOPS in half precision. Assumed,
# not measured, and the same for every card, so that the same recipe makes the same choice.
GPU = Rates(launch=6e-6, byte=1 / 6e11, flop=1 / 5e13)


class Matrix(NamedTuple):
    """A layer's flattened weight: (out, in), bytes of an element, ranks of all LoRAs that reach it together, and
    whether one of them has no thin factors."""

    out: int
    inputs: int
    itemsize: int
    ranks: int = 1
    is_dense: bool = False

    @property
    def nbytes(self) -> int:
        return self.out * self.inputs * self.itemsize


@dataclass(frozen=True)
class Workload:
    """One sampling pass: model evaluations, changes of gates, and the size of what goes through the UNet."""

    calls: int
    changes: int
    rows: int
    height: int
    """of the latent"""
    width: int
    text_tokens: int = 77
    rows_differ: bool = False
    """whether LoRAs without masks have other gates in some rows than in others"""
    recurs: bool = True
    """whether passes with the same constant gates are likely to follow, as with the next picture of a batch"""

    @property
    def charged_calls(self) -> int:
        return max(self.calls, CONSTANT_CALLS) if self.recurs and self.changes <= 1 else self.calls


# Prompts are encoded once each, in chunks of 77 tokens.
ENCODING = Workload(calls=1, changes=1, rows=1, height=1, width=77, recurs=False)


def place_of(layer: str, levels: int) -> str | int:
    """What goes through a layer: the prompt's tokens, one number a row, or a grid of so many halvings."""
    if layer.endswith(("attn2_to_k", "attn2_to_v")):
        return "text"
    if "_emb_layers_" in layer or layer.startswith(("unet_time_embed", "unet_label_emb")):
        return "row"
    return level_of(layer, levels) if layer.startswith("unet_") else "text"


def tokens(layer: str, work: Workload, levels: int) -> int:
    """Positions that one call sends through a layer."""
    place = place_of(layer, levels)
    if isinstance(place, str):
        return work.rows * {"text": work.text_tokens, "row": 1}[place]
    return work.rows * max(work.height >> place, 1) * max(work.width >> place, 1)


def costs(matrix: Matrix, positions: int, work: Workload, rates: Rates) -> tuple[float, float]:
    """What a layer costs over a pass, merged and branched, in the unit of the rates."""
    m, n, itemsize, ranks, is_dense = matrix
    merging = (MERGE_LAUNCHES * rates.launch + 4 * m * n * itemsize * rates.byte
               + 2 * ranks * m * n * rates.flop)
    branching = (BRANCH_LAUNCHES * rates.launch + positions * (2 * m + n + 4 * ranks) * itemsize * rates.byte
                 + 2 * ranks * positions * (m + n) * rates.flop) * rates.branch_factor
    if is_dense:
        branching += merging + 2 * max(ranks, 1) * positions * m * n * rates.flop
    return work.changes * merging, work.charged_calls * branching


def choose_merged(layers: Mapping[str, Matrix], work: Workload, levels: int, memory_limit: float,
                  rates: Rates = CPU) -> set[str]:
    """The layers to merge, the others branch. Where rows differ every layer must branch. Under a memory limit (bytes)
    the layers that save most per byte are merged."""
    if work.rows_differ:
        return set()
    gains = []
    for layer, matrix in layers.items():
        merge, branch = costs(matrix, tokens(layer, work, levels), work, rates)
        if merge < branch:
            gains.append(((branch - merge) / matrix.nbytes, layer, matrix.nbytes))
    merged, used = set(), 0
    for _, layer, nbytes in sorted(gains, reverse=True):
        if used + nbytes <= memory_limit:
            merged.add(layer)
            used += nbytes
    return merged
