"""One layer and the LoRAs that reach it, and the two forms of the same mathematics.

    merge:  W' = W + U·diag(g)·D            branch:  y = W x + U·(g ⊙ (D x))

D stacks the down matrices of all LoRAs by rank, U the up matrices, and g = λ_k · s_k for the ranks of LoRA k
(LoRA, arXiv 2106.09685, equation 3; the products λ_k·s_k·B_k·A_k are summed, never the factors apart).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .fit import Factors
from .product import add_times, times
from .targets import Target

# Bounds the memory that the deltas of one batched product take beside the merged weights.
LAYERS_PER_BATCH = 16
MERGEABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Layer:
    """The stacked factors of one layer: `down` (ranks, in), `up` (out, ranks), `strength` and `owner` (ranks,)."""

    def __init__(self, name: str, target: Target, factors: dict[int, Factors], block_factors: dict[int, float]):
        dtype = factors[min(factors)].down.dtype
        for item in factors.values():
            dtype = torch.promote_types(torch.promote_types(dtype, item.down.dtype), item.up.dtype)
        self.name = name
        self.target = target
        self.loras = tuple(factors)
        self.down = torch.cat([item.down.to(dtype) for item in factors.values()])
        self.up = torch.cat([item.up.to(dtype) for item in factors.values()], dim=1)
        ranks = [(k, item.scale * block_factors[k]) for k, item in factors.items() for _ in range(len(item.down))]
        self.owner = torch.tensor([k for k, _ in ranks])
        self.strength = torch.tensor([strength for _, strength in ranks], dtype=torch.float32)
        self._row_gates: tuple[object, torch.Tensor] | None = None

    @property
    def signature(self) -> tuple:
        """Layers of equal signature can be merged in one batched product."""
        weight = self.target.weight()
        return (*self.up.shape, self.down.shape[1], self.up.dtype, weight.dtype, weight.device)

    def move(self, device: torch.device) -> None:
        """Brings the factors to the device where the layer is computed."""
        if self.down.device != device:
            self.down, self.up = self.down.to(device), self.up.to(device)
            self.owner, self.strength = self.owner.to(device), self.strength.to(device)

    def gates(self, weights: torch.Tensor) -> torch.Tensor:
        """g for λ of shape (rows, LoRAs): (rows, ranks)."""
        return weights[:, self.owner] * self.strength

    def add_branch(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """y + U·(g ⊙ (D x)); x (rows, …, in) or (rows, in, h, w), weights λ (rows or 1, LoRAs) on x's device."""
        self.move(x.device)
        if self._row_gates is None or self._row_gates[0] is not weights:
            self._row_gates = (weights, self.gates(weights))
        gates = rows_of(self._row_gates[1], x.shape[0], self.name).to(y.dtype)
        x, down, up = x.to(y.dtype), self.down.to(y.dtype), self.up.to(y.dtype)
        if isinstance(module, nn.Conv2d):
            # the module's own routine keeps its padding mode (tiling makes it circular)
            inner = module._conv_forward(x, down.view(len(down), -1, *module.kernel_size), None)
            return y + F.conv2d(inner * gates[:, :, None, None], up[:, :, None, None])
        inner = times(x, down) * gates.view(-1, *[1] * (x.dim() - 2), gates.shape[1])
        if y.requires_grad or inner.requires_grad or not y.is_contiguous():
            return y + times(inner, up)
        flat = y.view(-1, y.shape[-1])
        add_times(flat, inner.reshape(-1, inner.shape[-1]), up, out=flat)
        return y


def merge(layers: Sequence[Layer], originals: Sequence[torch.Tensor], merged: Sequence[torch.Tensor],
          weights: torch.Tensor) -> None:
    """Writes W' of layers of one signature into `merged` (each (out, in)); `originals` are the W, untouched.

    weights: λ (1, LoRAs). On a GPU batched products save the launches, on a CPU a product per layer saves passes
    over memory.
    """
    if not merged[0].is_cuda:
        merge_one_by_one(layers, originals, merged, weights)
        return
    for i in range(0, len(layers), LAYERS_PER_BATCH):
        batch = slice(i, i + LAYERS_PER_BATCH)
        merge_batched(layers[batch], originals[batch], merged[batch], weights)


def merge_one_by_one(layers: Sequence[Layer], originals: Sequence[torch.Tensor], merged: Sequence[torch.Tensor],
                     weights: torch.Tensor) -> None:
    """W' = W + U·diag(g)·D, one layer after the other."""
    for layer, original, target in zip(layers, originals, merged):
        up = (layer.up * layer.gates(weights)[0]).to(target.dtype)
        add_times(original.reshape(target.shape), up, layer.down.to(target.dtype).t(), out=target)


def merge_batched(layers: Sequence[Layer], originals: Sequence[torch.Tensor], merged: Sequence[torch.Tensor],
                  weights: torch.Tensor) -> None:
    """The same for layers of one signature in one product; takes memory for all their deltas at once."""
    dtype = merged[0].dtype
    up = torch.stack([layer.up for layer in layers])
    owner = torch.stack([layer.owner for layer in layers])
    gates = weights[0][owner] * torch.stack([layer.strength for layer in layers])
    down = torch.stack([layer.down for layer in layers]).to(dtype)
    delta = torch.bmm((up * gates[:, None, :]).to(dtype), down)
    torch._foreach_copy_(list(merged), [w.reshape(merged[0].shape) for w in originals])
    torch._foreach_add_(list(merged), list(delta.unbind()))


def rows_of(gates: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    """The gates for x of so many rows: extensions that tile pictures cut every row into the same number of rows."""
    if len(gates) in (1, rows):
        return gates
    if rows % len(gates):
        raise RuntimeError(f"SciArt: {name} was called with {rows} rows where {len(gates)} were expected")
    return gates.repeat_interleave(rows // len(gates), dim=0)
