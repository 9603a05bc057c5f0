"""Deltas without thin factors in a layer: fitted to its weight, merged, or added to its output.

A dense ΔW is as large as the weight itself, so it is computed when it is needed, for one layer at a time, from the
model's own weight, and let go of at once: at each rebuild of a merged weight, or at each call of a layer that branches,

    y + Σ_k g_k · (ΔW_k x)

whose gradient computes it once more rather than keeping it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..lora.dense import Dense, Difference
from .product import times, unrounded


class Whole(NamedTuple):
    """A delta that fits a layer's weight; channels: the input channels that it is about, where the layer has more."""

    delta: Dense
    channels: int | None = None

    def to(self, device: torch.device) -> Whole:
        """The same on another device. Differences stay in the file's memory until they are added: they are as large as
        the model."""
        return self if isinstance(self.delta, Difference) else Whole(self.delta.to(device), self.channels)

    @torch.no_grad()
    def of(self, weight: Tensor) -> Tensor:
        """ΔW for the layer's own weight, in its shape, on its device, in float32 or wider."""
        with unrounded(weight.device):
            if self.channels is None:
                return self.delta.of(weight)
            delta = self.delta.of(weight[:, :self.channels])
            return F.pad(delta, (0, 0, 0, 0, 0, weight.shape[1] - self.channels))


def weighted_sum(wholes: Sequence[Whole], gates: Sequence[float], weight: Tensor) -> Tensor | None:
    """Σ g·ΔW over those whose gate is not 0; None where all are."""
    total = None
    for whole, gate in zip(wholes, gates):
        if gate:
            delta = whole.of(weight)  # may be the file's own tensor: never written
            total = delta * gate if total is None else total.add_(delta, alpha=gate)
    return total


def add_whole_branch(module: nn.Module, weight: Tensor, wholes: Sequence[Whole], x: Tensor, y: Tensor,
                     gates: Tensor) -> Tensor:
    """y + Σ g·(ΔW x) of a linear layer or a convolution; gates (rows or 1, wholes) of x's rows, on the CPU.

    Where all rows share their gates it is one product; else each LoRA's product is of its own rows alone.
    """
    if len(gates) == 1:
        told = gates[0].tolist()
        if not any(told):
            return y
        return y + _product(module, x.to(y.dtype), lambda: weighted_sum(wholes, told, weight))
    for whole, own in zip(wholes, gates.unbind(1)):
        rows = own.nonzero().flatten()
        if len(rows):
            strength, rows = own[rows].to(y).view(-1, *[1] * (y.dim() - 1)), rows.to(y.device)
            change = _product(module, x[rows].to(y.dtype), lambda whole=whole: whole.of(weight))
            y = y.index_add(0, rows, change * strength)
    return y


def add_bias_branch(module: nn.Module, bias: Tensor | None, wholes: Sequence[Whole], y: Tensor,
                    gates: Tensor) -> Tensor:
    """y + Σ g·Δb, whether the layer has a bias of its own or not."""
    return y + _by_channel(module, y, _vectors(wholes, bias, y, gates))


def add_norm_branch(module: nn.Module, weight: Tensor, wholes: Sequence[Whole], x: Tensor, y: Tensor,
                    gates: Tensor) -> Tensor:
    """y + norm(x)·Σ g·Δw of a group or layer norm."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if isinstance(module, nn.GroupNorm):
        normed = F.group_norm(x, module.num_groups, eps=module.eps)
    else:
        normed = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    return y + normed.to(y.dtype) * _by_channel(module, y, _vectors(wholes, weight, y, gates))


def _vectors(wholes: Sequence[Whole], vector: Tensor | None, y: Tensor, gates: Tensor) -> Tensor:
    """Σ g·Δ for each row of gates, (rows, channels)."""
    if vector is None:  # a layer without bias is one whose bias is zero
        vector = y.new_zeros(wholes[0].delta.shape[0])
    deltas = torch.stack([whole.of(vector).flatten() for whole in wholes])
    return (gates.to(deltas) @ deltas).to(y.dtype)


def _by_channel(module: nn.Module, y: Tensor, values: Tensor) -> Tensor:
    """(rows, channels), shaped so that it meets y's channels."""
    if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
        return values.view(*values.shape, *[1] * (y.dim() - 2))
    return values.view(len(values), *[1] * (y.dim() - 2), values.shape[1])


def _product(module: nn.Module, x: Tensor, delta: Callable[[], Tensor]) -> Tensor:
    """ΔW x, with the layer's own stride, padding and padding mode."""
    def multiply(x: Tensor) -> Tensor:
        matrix = delta().to(x.dtype)
        return module._conv_forward(x, matrix, None) if isinstance(module, nn.Conv2d) else times(x, matrix)

    if torch.is_grad_enabled() and x.requires_grad:
        return checkpoint(multiply, x, use_reentrant=False, preserve_rng_state=False)
    return multiply(x)
