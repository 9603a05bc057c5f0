"""The branch form of thin factors, y + U·(g ⊙ (D x)), beside the call of a layer's own module.

A model calls some two hundred layers in each step, and on a GPU the host must hand over their kernels as fast as they
run. So what stays the same from call to call is found once (`QuickBranch`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnknownRowsError
from .product import add_times, convolved_from, convolves, times
from .stack import Stacked, Thin


class ThinBranch:
    """The branch of one layer that is a sum of thin factors and nothing else."""

    __slots__ = ("_layer",)

    def __init__(self, layer: Stacked):
        self._layer = layer

    def add(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
        """y with what the LoRAs add; None where all their gates are 0. x (rows, …, in) or (rows, in, h, w)."""
        layer = self._layer
        gates = layer.stack.gates_of(layer)
        if gates is None:
            return None
        factors = layer.stack.on(y.device, y.dtype).of_layer[layer.number]
        return add_thin_branch(module, x, y, factors, rows_of(gates, len(x), layer.name))


class QuickBranch(ThinBranch):
    """One that has a quick way, `_add`: three kernels without further questions, for calls of the usual kind. What it
    needs is found once for a precision, a number of rows, and a place where the gates lie."""

    __slots__ = ("_below", "_dtype", "_factors", "_gates", "_rows", "_seen", "_turned")

    def __init__(self, layer: Stacked):
        super().__init__(layer)
        self._seen: Tensor | None = None
        """the gates of the whole stack among which this layer's were found"""

    def add(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
        gates = self._layer.stack.gates
        if gates is None:
            return None
        if gates is not self._seen or y.dtype is not self._dtype or len(x) != self._rows:
            self._find(gates, len(x), y)
        if not (x.numel() < self._below and x.dtype is self._dtype and y.is_contiguous() and not y.requires_grad):
            return super().add(module, x, y)
        self._add(x, y, *(self._turned or self._turn(*(factor.to(self._dtype) for factor in self._factors))))
        return y

    def _find(self, gates: Tensor, rows: int, y: Tensor) -> None:
        layer = self._layer
        self._seen = None
        self._rows, self._dtype = rows, y.dtype
        self._gates = layer.stack.gates_of(layer)
        self._factors = down, up = layer.stack.on(y.device, y.dtype).of_layer[layer.number]
        usual = len(self._gates) in (1, rows)
        # of the entries of x: as long as neither product is one that `product` would rather convolve
        self._below = convolved_from(y, len(down)) * min(1, down.shape[1] / len(up)) if usual else 0
        # on a CPU factors of another precision than the model's are cast at each call, and not kept
        self._turned = self._turn(down, up) if usual and down.dtype == y.dtype else None
        self._seen = gates

    def _turn(self, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The factors and the gates as the quick way takes them; views."""
        raise NotImplementedError

    def _add(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor, gates: Tensor) -> None:
        """Adds to y itself, which lies together in memory and wants no gradient."""
        raise NotImplementedError


class LinearBranch(QuickBranch):
    """Of a linear layer."""

    __slots__ = ()

    def _turn(self, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return down.t(), up.t(), self._gates if len(self._gates) == 1 else self._gates.unsqueeze(1)

    def _add(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor, gates: Tensor) -> None:
        inner = x.reshape(-1, len(down)).mm(down)
        if gates.dim() == 2:
            inner.mul_(gates)
        else:
            inner.view(self._rows, -1, len(up)).mul_(gates)
        y.view(-1, up.shape[1]).addmm_(inner, up)


class PointwiseBranch(QuickBranch):
    """Of a convolution of 1 × 1."""

    __slots__ = ()

    def _turn(self, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return down.expand(self._rows, -1, -1), up.expand(self._rows, -1, -1), self._gates.unsqueeze(2)

    def _add(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor, gates: Tensor) -> None:
        y.flatten(2).baddbmm_(up, torch.bmm(down, x.flatten(2)).mul_(gates))


def branch_of(layer: Stacked, module: nn.Module) -> ThinBranch:
    """The branch of a layer of this module."""
    if isinstance(module, nn.Linear):
        return LinearBranch(layer)
    return PointwiseBranch(layer) if _is_pointwise(module) else ThinBranch(layer)


def add_thin_branch(module: nn.Module, x: Tensor, y: Tensor, factors: Thin, gates: Tensor) -> Tensor:
    """y + U·(g ⊙ (D x)), computed in y's precision; g (rows or 1, ranks), or by token too: (rows or 1, tokens, ranks),
    of a convolution (rows or 1, ranks, h, w). Where no gradient is wanted it is added into y itself, of factors in its
    precision in three kernels."""
    down, up = factors
    if down.dtype != y.dtype:
        down, up = factors = Thin(down.to(y.dtype), up.to(y.dtype))
    if x.dtype != y.dtype:
        x = x.to(y.dtype)
    in_place = not (torch.is_grad_enabled() and (y.requires_grad or x.requires_grad))
    if isinstance(module, nn.Conv2d):
        return _add_convolved(module, x, y, factors, gates, in_place)
    if not (in_place and y.is_contiguous()):
        if gates.dim() < x.dim() and gates.shape[0] > 1:
            gates = gates.view(len(gates), *[1] * (x.dim() - 2), -1)
        return y + times((times(x, down) * gates).to(y.dtype), up)
    out, ranks = up.shape
    inner = times(x.view(-1, x.shape[-1]) if x.is_contiguous() else x, down).view(-1, ranks)
    if gates.dim() == 3:
        inner.view(*y.shape[:-1], ranks).mul_(gates)
    elif gates.shape[0] == 1:
        inner.mul_(gates)
    else:
        inner.view(gates.shape[0], -1, ranks).mul_(gates[:, None])
    flat = y.view(-1, out)
    add_times(flat, inner, up, out=flat)
    return y


def _add_convolved(module: nn.Conv2d, x: Tensor, y: Tensor, factors: Thin, gates: Tensor, in_place: bool) -> Tensor:
    """The same of a convolution: D has its kernels, U is 1 × 1."""
    down, up = factors
    in_place = in_place and y.is_contiguous()
    # the module's own routine keeps its padding mode (tiling makes it circular)
    inner = module._conv_forward(x, down.view(len(down), -1, *module.kernel_size), None)
    gates = gates if gates.dim() == 4 else gates[:, :, None, None]
    if not in_place or convolves(inner, up) or not inner.is_contiguous():
        return y + F.conv2d((inner * gates).to(y.dtype), up[:, :, None, None])
    y.flatten(2).baddbmm_(up.expand(len(y), -1, -1), inner.mul_(gates).flatten(2))
    return y


def _is_pointwise(module: nn.Module) -> bool:
    return (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride == (1, 1)
            and module.padding == (0, 0) and module.groups == 1)


def rows_of(gates: Tensor, rows: int, name: str) -> Tensor:
    """The gates for x of so many rows: extensions that tile pictures cut every row into the same number of rows."""
    if gates.shape[0] in (1, rows):
        return gates
    return gates[:, None].expand(-1, repeats_of(len(gates), rows, name), -1).flatten(0, 1)


def repeats_of(known: int, rows: int, name: str) -> int:
    """How many rows of a call belong to each of the rows whose gates are known."""
    if rows % known:
        raise UnknownRowsError(f"SciArt: {name} was called with {rows} rows where {known} were expected")
    return rows // known
