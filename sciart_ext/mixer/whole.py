"""Deltas without thin factors in a layer: fitted to its weight, merged, or added to its output.

A dense ΔW is as large as the weight itself, so it is computed when it is needed, for one layer at a time, from the
model's own weight, and let go of at once: at each rebuild of a merged weight, or at each call of a layer that branches,

    y + Σ_k g_k · (ΔW_k x)

whose gradient computes it once more rather than keeping it. What the file holds of it lies where the layer is computed,
as far as there is room (`PlacedWholes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..lora.dense import Dense, Difference
from .gates import pinned, sent
from .kept import Kept, Room
from .product import add_times, times, unrounded


class Whole(NamedTuple):
    """A delta that fits a layer's weight; channels: the input channels that it is about, where the layer has more."""

    delta: Dense
    channels: int | None = None

    @property
    def nbytes(self) -> int:
        """Of what the file holds of it."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.delta.tensors)

    def each(self, change: Callable[[Tensor], Tensor]) -> Whole:
        """The same with all its tensors changed."""
        return Whole(self.delta.each(change), self.channels)

    def on(self, device: torch.device, dtype: torch.dtype) -> Whole:
        """The same on a device, cast there to the precision in which ΔW is computed: not differences, which are as
        large as the weight."""
        if isinstance(self.delta, Difference) and len(self.delta.shape) > 1:
            return self.each(lambda tensor: sent(tensor, device))
        return self.each(lambda tensor: sent(tensor, device).to(dtype))

    @torch.no_grad()
    def of(self, weight: Tensor) -> Tensor:
        """ΔW for the layer's own weight, in its shape, on its device, in float32 or wider."""
        with unrounded(weight.device):
            if self.channels is None:
                return self.delta.of(weight)
            delta = self.delta.of(weight[:, :self.channels])
            return F.pad(delta, (0, 0, 0, 0, 0, weight.shape[1] - self.channels))


class PlacedWholes:
    """The deltas without thin factors of one layer where it is computed: kept there as far as there is room, else sent
    whenever they are needed, from pinned memory, so that nothing waits for it. What lies in main memory stays there."""

    def __init__(self, wholes: Mapping[int, Whole], room: Room):
        self._wholes = wholes
        self._kept: Kept = Kept(room)
        self._ready: dict[tuple[int, torch.dtype], Whole] = {}
        self._source: tuple[Tensor, int, Tensor] | None = None

    def on(self, k: int, device: torch.device, dtype: torch.dtype) -> Whole:
        """One of them, for a weight of this precision."""
        dtype = self._wholes[k].delta.wide(dtype)
        if (k, dtype) not in self._ready:
            delta, channels = self._wholes[k]
            self._ready[k, dtype] = Whole(delta.ready(dtype), channels)
        ready = self._ready[k, dtype]
        if device.type == "cpu":
            return ready
        key = (k, device, dtype)
        placed = self._kept.get(key, lambda: ready.on(device, dtype))
        if key not in self._kept:
            self._ready[k, dtype] = ready.each(partial(pinned, device=device))
        return placed

    def copy_of(self, weight: Tensor, device: torch.device) -> Tensor:
        """A weight that the host keeps elsewhere, on the device."""
        if device.type == "cpu" or weight.device == device:
            return weight.to(device)
        key = ("copy", device)
        if self._source is None or self._source[0] is not weight or self._source[1] != weight._version:
            self._source = (weight, weight._version, weight)
            if key in self._kept:
                self._kept.drop(key)
        placed = self._kept.get(key, lambda: sent(self._source[2].detach(), device))
        if key not in self._kept:
            self._source = (*self._source[:2], pinned(self._source[2].detach(), device))
        return placed

    def release(self) -> None:
        """Lets go of what does not lie in main memory."""
        self._kept.drop_all()
        self._source = None


def weighted_sum(wholes: Sequence[Whole], gates: Sequence[float], weight: Tensor) -> Tensor | None:
    """Σ g·ΔW over those whose gate is not 0; None where all are."""
    total = None
    for whole, gate in zip(wholes, gates):
        if gate:
            delta = whole.of(weight)  # may be the file's own tensor: never written
            total = delta * gate if total is None else total.add_(delta, alpha=gate)
    return total


def add_whole_branch(module: nn.Module, weight: Tensor, wholes: Sequence[Whole], x: Tensor, y: Tensor,
                     rows: Sequence[tuple[float, ...]], strengths: Tensor | None) -> Tensor:
    """y + Σ g·(ΔW x) of a linear layer or a convolution, into y itself where no gradient is wanted.

    rows: one number per delta, for each row of x or one for all; strengths: the same (rows, wholes) beside y, None
    where it is one for all. These need one product; else each delta has one, of the rows from its first to its last.
    """
    if strengths is None:
        if not any(rows[0]):
            return y
        return add_product(module, x, y, lambda: weighted_sum(wholes, rows[0], weight), None)
    for number, whole in enumerate(wholes):
        acting = [row for row, own in enumerate(rows) if own[number]]
        if acting:
            span = slice(acting[0], acting[-1] + 1)
            added = add_product(module, x[span], y[span], lambda whole=whole: whole.of(weight),
                                 strengths[span, number].to(y.dtype).view(-1, *[1] * (y.dim() - 1)))
            y = torch.cat([y[:span.start], added, y[span.stop:]]) if _wants_gradient(x, y) else y
    return y


def add_bias_branch(module: nn.Module, bias: Tensor | None, wholes: Sequence[Whole], y: Tensor,
                    rows: Sequence[tuple[float, ...]], strengths: Tensor | None) -> Tensor:
    """y + Σ g·Δb, whether the layer has a bias of its own or not; rows, strengths: as in `add_whole_branch`."""
    vectors = _vectors(wholes, bias, y, rows, strengths)
    return y if vectors is None else y + _by_channel(module, y, vectors)


def add_norm_branch(module: nn.Module, weight: Tensor, wholes: Sequence[Whole], x: Tensor, y: Tensor,
                    rows: Sequence[tuple[float, ...]], strengths: Tensor | None) -> Tensor:
    """y + norm(x)·Σ g·Δw of a group or layer norm."""
    vectors = _vectors(wholes, weight, y, rows, strengths)
    if vectors is None:
        return y
    return torch.addcmul(y, _normed(module, x).to(y.dtype), _by_channel(module, y, vectors))


def add_vector(module: nn.Module, vector: Tensor | None, whole: Whole, x: Tensor | None, y: Tensor,
               gates: Tensor) -> Tensor:
    """y + g·Δb of a bias, or y + g·norm(x)·Δw of a norm's weight, where x is given; gates: they spread to y."""
    if vector is None:  # a layer without bias is one whose bias is zero
        vector = y.new_zeros(whole.delta.shape[0])
    change = _by_channel(module, y, whole.of(vector).view(1, -1).to(y.dtype)) * gates
    return y + change if x is None else torch.addcmul(y, _normed(module, x).to(y.dtype), change)


def _normed(module: nn.Module, x: Tensor) -> Tensor:
    """norm(x) of a group or layer norm, without its weight and bias; of half precision in single."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    return F.layer_norm(x, module.normalized_shape, eps=module.eps)


def _vectors(wholes: Sequence[Whole], vector: Tensor | None, y: Tensor, rows: Sequence[tuple[float, ...]],
             strengths: Tensor | None) -> Tensor | None:
    """Σ g·Δ for each row, (rows or 1, channels); None where all is 0."""
    if vector is None:  # a layer without bias is one whose bias is zero
        vector = y.new_zeros(wholes[0].delta.shape[0])
    if strengths is None:
        total = weighted_sum(wholes, rows[0], vector)
        return None if total is None else total.view(1, -1).to(y.dtype)
    deltas = torch.stack([whole.of(vector).flatten() for whole in wholes])
    with unrounded(y.device):
        return (strengths.to(deltas.dtype) @ deltas).to(y.dtype)


def _by_channel(module: nn.Module, y: Tensor, values: Tensor) -> Tensor:
    """(rows, channels), shaped so that it meets y's channels."""
    if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
        return values.view(*values.shape, *[1] * (y.dim() - 2))
    return values.view(len(values), *[1] * (y.dim() - 2), values.shape[1])


def add_product(module: nn.Module, x: Tensor, y: Tensor, delta: Callable[[], Tensor], gates: Tensor | None) -> Tensor:
    """y + g·(ΔW x), with the layer's own stride, padding and padding mode; into y where no gradient is wanted. delta:
    makes ΔW; gates: they spread to y; None: 1."""
    def multiply(x: Tensor) -> Tensor:
        matrix = delta().to(x.dtype)
        return module._conv_forward(x, matrix, None) if isinstance(module, nn.Conv2d) else times(x, matrix)

    x = x if x.dtype == y.dtype else x.to(y.dtype)
    if _wants_gradient(x, y):
        change = checkpoint(multiply, x, use_reentrant=False, preserve_rng_state=False) if x.requires_grad else (
            multiply(x))
        return y + (change if gates is None else change * gates)
    if gates is not None:
        return y.addcmul_(multiply(x), gates)
    if isinstance(module, nn.Conv2d) or not y.is_contiguous():
        return y.add_(multiply(x))
    flat = y.view(-1, y.shape[-1])
    add_times(flat, x.reshape(-1, x.shape[-1]), delta().to(y.dtype), out=flat)
    return y


def _wants_gradient(x: Tensor, y: Tensor) -> bool:
    """Whether one is to reach x or y."""
    return torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
