"""One layer and the LoRAs that reach it, and the two forms of the same mathematics.

    merge:  W' = W + U·diag(g)·D            branch:  y = W x + U·(g ⊙ (D x))

D stacks the down matrices of all LoRAs by rank, U the up matrices, and g = λ_k · s_k for the ranks of LoRA k
(LoRA, arXiv 2106.09685, equation 3; the products λ_k·s_k·B_k·A_k are summed, never the factors apart). Factors lie in
stacks of layers of one shape (`stack.py`); deltas that have no thin factors are added to both (`whole.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnknownRowsError
from .fit import Factors
from .gates import Gates
from .product import add_times, convolves, times, unrounded
from .targets import Target
from .whole import Whole, add_bias_branch, add_norm_branch, add_whole_branch, weighted_sum

if TYPE_CHECKING:
    from .stack import Stack, Thin

MERGEABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Layer:
    """The deltas of one layer, by the index of their gate: those with thin factors in `factors`, the others in
    `wholes`; `strengths`: what multiplies each gate in this layer."""

    merges_alone = False
    """whether its merged weight is more than W and a sum of products, which layers of one shape make together"""

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: Mapping[int, float], untouched: Callable[[Target], Tensor] | None = None):
        self.name = name
        self.target = target
        self._untouched = untouched
        self.loras = tuple(deltas)
        self.factors = {k: item for k, item in deltas.items() if isinstance(item, Factors)}
        self.wholes = {k: item for k, item in deltas.items() if isinstance(item, Whole)}
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
    def ranks(self) -> int:
        """Of all thin factors together."""
        return sum(len(item.down) for item in self.factors.values())

    def untouched(self) -> Tensor | None:
        """The weight that the deltas without thin factors start from, in the target's own rows: the model's, without
        what the host itself has added to it."""
        weight = self.target.weight()
        relative = any(whole.delta.needs_weight for whole in self.wholes.values())
        if self._untouched is not None and weight is not None and relative:
            weight = self._untouched(self.target).to(weight.device)
        return weight if self.target.rows is None else weight[self.target.rows]

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

    def is_silent(self, gates: Gates) -> bool:
        """Whether every LoRA that reaches the layer has a gate of 0 in all rows."""
        return not gates.acts(self.loras)

    def release(self) -> None:
        """Lets go of what is kept between calls, on whichever device."""

    def write_merged(self, original: Tensor, merged: Tensor, gates: Gates) -> None:
        """W' = W + U·diag(g)·D + Σ g·ΔW(W), rounded once, into `merged`: (out, in) or the weight's own shape; gates of
        which all rows are the same, spread before (`GateTable`)."""
        own = [gates.uniform[k] * self.strengths[k] for k in self.wholes]
        total = weighted_sum(list(self.wholes.values()), own, self.untouched())
        own_gates = self.row_gates
        if own_gates is not None:
            dtype = torch.promote_types(self.stack.dtype, torch.float32)
            down, up = self.stack.on(original.device, dtype).of_layer[self.number]
            with unrounded(original.device):
                thin = ((up * own_gates) @ down).reshape(original.shape)
            total = thin if total is None else total + thin
        changed = original if total is None else original.to(total.dtype) + total
        merged.copy_(changed.reshape(merged.shape))

    def add_branch(self, module: nn.Module, x: Tensor, y: Tensor, gates: Gates) -> Tensor:
        """y and what the deltas add to it; x (rows, …, in) or (rows, in, h, w), gates spread before (`GateTable`)."""
        if self.row_gates is not None:
            y = self.add_factors(module, x, y, self.row_gates)
        if not self.wholes:
            return y
        own = [tuple(row[k] * self.strengths[k] for k in self.wholes) for row in gates.rows]
        return self.add_wholes(module, x, y, list(self.wholes.values()), own)

    def add_wholes(self, module: nn.Module, x: Tensor, y: Tensor, wholes: Sequence[Whole],
                   gates: Sequence[tuple[float, ...]]) -> Tensor:
        """y and what these deltas without thin factors add to it; gates: one number per delta, for every row of a
        call or one for all."""
        own = self.untouched()
        if self.target.is_bias:
            return add_bias_branch(module, own, wholes, y, gates)
        if self.target.is_norm:
            return add_norm_branch(module, own, wholes, x, y, gates)
        return add_whole_branch(module, own, wholes, x, y, gates)

    def add_factors(self, module: nn.Module, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        """y + U·(g ⊙ (D x)), g (rows or 1, ranks). Where no gradient is wanted it is added into y itself, in three
        kernels."""
        factors = self.stack.on(y.device, y.dtype).of_layer[self.number]
        if x.dtype != y.dtype:
            x = x.to(y.dtype)
        if len(gates) not in (1, len(x)):
            gates = rows_of(gates, len(x), self.name)
        in_place = not (torch.is_grad_enabled() and (y.requires_grad or x.requires_grad))
        if isinstance(module, nn.Conv2d):
            return _add_convolved(module, x, y, factors, gates, in_place)
        if len(gates) > 1 and x.dim() > 2:
            gates = gates.view(len(gates), *[1] * (x.dim() - 2), -1)
        inner = times(x, factors.down)
        if not (in_place and y.is_contiguous()):
            return y + times((inner * gates).to(y.dtype), factors.up)
        inner.mul_(gates)
        flat = y.view(-1, y.shape[-1])
        add_times(flat, inner.view(-1, inner.shape[-1]), factors.up, out=flat)
        return y


def _add_convolved(module: nn.Conv2d, x: Tensor, y: Tensor, factors: Thin, gates: Tensor, in_place: bool) -> Tensor:
    """The same of a convolution: D has its kernels, U is 1 × 1."""
    down, up = factors
    if _is_pointwise(module) and x.is_contiguous() and not convolves(x, down):
        inner = (down.expand(len(x), -1, -1) @ x.flatten(2)).unflatten(2, x.shape[2:])
    else:
        # the module's own routine keeps its padding mode (tiling makes it circular)
        inner = module._conv_forward(x, down.view(len(down), -1, *module.kernel_size), None)
    gates = gates[:, :, None, None]
    if not in_place:
        return y + F.conv2d((inner * gates).to(y.dtype), up[:, :, None, None])
    inner.mul_(gates)
    if convolves(inner, up) or not (y.is_contiguous() and inner.is_contiguous()):
        return y + F.conv2d(inner, up[:, :, None, None])
    y.flatten(2).baddbmm_(up.expand(len(y), -1, -1), inner.flatten(2))
    return y


def _is_pointwise(module: nn.Conv2d) -> bool:
    return (module.kernel_size == (1, 1) and module.stride == (1, 1) and module.padding == (0, 0)
            and module.groups == 1)


def rows_of(gates: Tensor, rows: int, name: str) -> Tensor:
    """The gates for x of so many rows: extensions that tile pictures cut every row into the same number of rows."""
    if len(gates) in (1, rows):
        return gates
    return gates.repeat_interleave(repeats_of(len(gates), rows, name), dim=0)


def repeats_of(known: int, rows: int, name: str) -> int:
    """How many rows of a call belong to each of the rows whose gates are known."""
    if rows % known:
        raise UnknownRowsError(f"SciArt: {name} was called with {rows} rows where {known} were expected")
    return rows // known
