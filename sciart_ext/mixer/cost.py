"""What merging and branching cost, and which of the two each layer should use.

With T tokens a call, a weight of m × n and total rank R, a branch costs 2·T·R·(m+n) FLOP a call and touches
T·(m+n) numbers; a merge costs 2·R·m·n FLOP a change of gates and touches m·n. Both are a number of matrix
elements times (2·R + k) with the same k, so the comparison needs the elements alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..lora.names import level_of

# What a branch costs beside a merge of as many elements. Measured over the 192 layers of SD 1.5's UNet (2 CPU cores,
# float32, 1 to 16 LoRAs of rank 32, 256² and 512²): 0.7 to 1.0 choose best in all cases, 2.0 costs 5 to 10 % more.
BRANCH_FACTOR = 1.0
# Weights merged for constant gates serve the next pictures too, and on a GPU every product that a call is spared
# counts more than its arithmetic: they are charged as if no pass were shorter than this.
CONSTANT_CALLS = 1000


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
    recurs: bool = True
    """whether passes with the same constant gates are likely to follow, as with the next picture of a batch"""

    @property
    def charged_calls(self) -> int:
        return max(self.calls, CONSTANT_CALLS) if self.recurs and self.changes <= 1 else self.calls


# Prompts are encoded once each, in chunks of 77 tokens.
ENCODING = Workload(calls=1, changes=1, rows=1, height=1, width=77, recurs=False)


def tokens(layer: str, work: Workload, levels: int) -> int:
    """Positions that one call sends through a UNet layer."""
    if layer.endswith(("attn2_to_k", "attn2_to_v")):
        return work.rows * work.text_tokens
    if "_emb_layers_" in layer or layer.startswith(("unet_time_embed", "unet_label_emb")):
        return work.rows
    halvings = level_of(layer, levels)
    return work.rows * max(work.height >> halvings, 1) * max(work.width >> halvings, 1)


def choose_merged(shapes: Mapping[str, tuple[int, int, int]], work: Workload, levels: int,
                  memory_limit: float, dense: bool = False) -> set[str]:
    """The layers to merge, the others branch.

    shapes: layer → (out, in of the flattened weight, bytes of one element). dense: deltas are not products of
    factors, so that a branch makes its layer's anew at each call and multiplies with the whole of it. Where rows differ
    every layer must branch. Under a memory limit (bytes) the layers that save most per byte are merged.
    """
    if work.rows_differ:
        return set()
    gains = []
    for layer, (m, n, itemsize) in shapes.items():
        merge = work.changes * m * n
        positions = tokens(layer, work, levels)
        branch = BRANCH_FACTOR * work.charged_calls * (m * n + positions * m * n if dense else positions * (m + n))
        if merge < branch:
            gains.append(((branch - merge) / (m * n * itemsize), layer, m * n * itemsize))
    merged, used = set(), 0
    for _, layer, nbytes in sorted(gains, reverse=True):
        if used + nbytes <= memory_limit:
            merged.add(layer)
            used += nbytes
    return merged
