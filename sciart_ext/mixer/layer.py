"""One layer and the LoRAs that reach it, and the two forms of the same mathematics.

    merge:  W' = W + U·diag(g)·D            branch:  y = W x + U·(g ⊙ (D x))

D stacks the down matrices of all LoRAs by rank, U the up matrices, and g = λ_k · s_k for the ranks of LoRA k
(LoRA, arXiv 2106.09685, equation 3; the products λ_k·s_k·B_k·A_k are summed, never the factors apart). Factors lie in
stacks of layers of one shape (`stack.py`); deltas that have no thin factors are added to both (`whole.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .branch import add_thin_branch, repeats_of, rows_of
from .fit import Factors
from .gates import Gates
from .kept import Room
from .product import unrounded
from .stack import Stack
from .targets import Target
from .whole import PlacedWholes, Whole, add_bias_branch, add_norm_branch, add_whole_branch, weighted_sum

MERGEABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Layer:
    """The deltas of one layer, by the index of their gate: those with thin factors in `factors`, the others in
    `wholes`; `strengths`: what multiplies each gate in this layer. room: of what the wholes keep on a device."""

    merges_alone = False
    """whether its merged weight is more than W and a sum of products, which layers of one shape make together"""

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: Mapping[int, float], room: Room, untouched: Callable[[Target], Tensor] | None = None):
        self.name = name
        self.target = target
        self._untouched = untouched
        self.loras = tuple(deltas)
        self.factors = {k: item for k, item in deltas.items() if isinstance(item, Factors)}
        self.wholes = {k: item for k, item in deltas.items() if isinstance(item, Whole)}
        self.placed = PlacedWholes(self.wholes, room)
        self.strengths = {k: block_factors[k] for k in deltas}
        self.stack: Stack | None = None
        """holds the factors, as its layer number `number`"""
        self.number = 0

    @property
    def row_gates(self) -> Tensor | None:
        """g (rows or 1, ranks) of the thin factors in the call that runs, float32; None where all are 0."""
        return None if self.stack is None else self.stack.gates_of(self)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(out, in) of the weight, flattened; a vector is one column."""
        weight = self.target.weight()
        rows = len(weight) if self.target.rows is None else self.target.rows.stop - self.target.rows.start
        return rows, weight[0].numel()

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Of a convolution; a matrix is one of 1 × 1."""
        return getattr(self.target.module, "kernel_size", (1, 1))

    @property
    def ranks(self) -> int:
        """Of all thin factors together."""
        return sum(len(item.down) for item in self.factors.values())

    def untouched(self) -> Tensor | None:
        """The weight that the deltas without thin factors start from, in the target's own rows: the model's, without
        what the host itself has added to it."""
        weight = self.target.weight()
        if self._untouched is not None and weight is not None and self.reads_weight:
            weight = self.placed.copy_of(self._untouched(self.target), weight.device)
        return weight if self.target.rows is None else weight[self.target.rows]

    @property
    def reads_weight(self) -> bool:
        """Whether a ΔW depends on the weight that it is added to."""
        return any(whole.delta.needs_weight for whole in self.wholes.values())

    @property
    def can_merge(self) -> bool:
        """Whether there is a weight, in a precision in which it can be added to."""
        weight = self.target.weight()
        return weight is not None and weight.dtype in MERGEABLE

    @property
    def is_dense(self) -> bool:
        """Whether a branch computes a whole ΔW at each call."""
        return bool(self.wholes)

    @property
    def is_plain(self) -> bool:
        """Whether it is a sum of thin factors and nothing else, which layers of one shape can merge together."""
        return not (self.wholes or self.merges_alone or self.target.rows is not None)

    @property
    def merges_in_stack(self) -> bool:
        """Whether layers of one shape make its merged weight together: plain ones, in a precision that is added to."""
        return self.is_plain and self.can_merge

    def is_silent(self, gates: Gates) -> bool:
        """Whether every LoRA that reaches the layer has a gate of 0 in all rows."""
        return not gates.acts(self.loras)

    def release(self) -> None:
        """Lets go of what is kept between calls, but for what lies in main memory."""
        self.placed.release()

    def write_merged(self, original: Tensor, merged: Tensor, gates: Gates) -> None:
        """W' = W + U·diag(g)·D + Σ g·ΔW(W), rounded once, into `merged`, of the weight's own shape; gates of which all
        rows are the same for its LoRAs, spread before (`GateTable`)."""
        device, own, strength, own_gates = original.device, self.untouched(), 1.0, self.row_gates
        acting = {k: gates.uniform[k] * self.strengths[k] for k in self.wholes if gates.uniform[k]}
        wholes = [self.placed.on(k, device, original.dtype) for k in acting]
        if len(acting) == 1 and own_gates is None:
            total, strength = wholes[0].of(own), next(iter(acting.values()))
        else:
            total = weighted_sum(wholes, list(acting.values()), own)
        if own_gates is not None:
            wide = torch.promote_types(self.stack.dtype, torch.float32)
            down, up = self.stack.on(device, wide).of_layer[self.number]
            with unrounded(device):
                thin = ((up * own_gates[:1]) @ down.to(wide)).reshape(original.shape)
            total = thin if total is None else total + thin
        if total is None:
            merged.copy_(original)
        else:
            write_sum(original, total, merged, strength)

    def add_branch(self, module: nn.Module, x: Tensor, y: Tensor, gates: Gates) -> Tensor:
        """y and what the deltas add to it; x (rows, …, in) or (rows, in, h, w), gates spread before (`GateTable`)."""
        own_gates = self.row_gates
        if own_gates is not None:
            factors = self.stack.on(y.device, y.dtype).of_layer[self.number]
            y = add_thin_branch(module, x, y, factors, rows_of(own_gates, len(x), self.name))
        if not self.wholes:
            return y
        wholes = [self.placed.on(k, y.device, y.dtype) for k in self.wholes]
        return self.add_wholes(module, x, y, wholes, gates.of(tuple((k, self.strengths[k]) for k in self.wholes)))

    def add_wholes(self, module: nn.Module, x: Tensor, y: Tensor, wholes: Sequence[Whole], gates: Gates) -> Tensor:
        """y and what these deltas without thin factors add to it; gates: one for each of them."""
        own, rows, strengths = self.untouched(), gates.rows, None
        if gates.uniform is None:
            repeats = repeats_of(len(rows), len(x), self.name)
            rows = [row for row in rows for _ in range(repeats)]
            strengths = gates.once((y.device, repeats), lambda: rows_of(gates.on(y.device), len(x), self.name))
        if self.target.is_bias:
            return add_bias_branch(module, own, wholes, y, rows, strengths)
        if self.target.is_norm:
            return add_norm_branch(module, own, wholes, x, y, rows, strengths)
        return add_whole_branch(module, own, wholes, x, y, rows, strengths)


def write_sum(original: Tensor, change: Tensor, merged: Tensor, strength: float = 1.0) -> None:
    """W + strength·ΔW in the precision of the wider of both, rounded once, into `merged`, of W's shape."""
    change = change.reshape(original.shape)
    if original.dtype in MERGEABLE:
        torch.add(original, change, alpha=strength, out=merged)
    else:  # eight bits, which torch does not add
        merged.copy_(torch.add(original.to(change.dtype), change, alpha=strength))
