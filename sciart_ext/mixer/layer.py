"""One layer and the LoRAs that reach it, and the two forms of the same mathematics.

    merge:  W' = W + U·diag(g)·D            branch:  y = W x + U·(g ⊙ (D x))

D stacks the down matrices of all LoRAs by rank, U the up matrices, and g = λ_k · s_k for the ranks of LoRA k
(LoRA, arXiv 2106.09685, equation 3; the products λ_k·s_k·B_k·A_k are summed, never the factors apart). Deltas that have
no thin factors are added to both (`whole.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import UnknownRowsError
from .fit import Factors
from .product import add_times, times, unrounded
from .targets import Target
from .whole import Whole, add_bias_branch, add_norm_branch, add_whole_branch, weighted_sum

# Bounds the memory that the deltas of one batched product take beside the merged weights.
LAYERS_PER_BATCH = 16
MERGEABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Layer:
    """The deltas of one layer: of those with thin factors the stacks `down` (ranks, in), `up` (out, ranks), `strength`
    and `owner` (ranks,); the others in `wholes`, with `whole_strength` and `whole_owner` (wholes,)."""

    merges_alone = False
    """whether its merged weight is more than W and a sum of products, which layers of one shape make together"""

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: Mapping[int, float], untouched: Callable[[Target], torch.Tensor] | None = None):
        self.name = name
        self.target = target
        self._untouched = untouched
        self.loras = tuple(deltas)
        factors = {k: item for k, item in deltas.items() if isinstance(item, Factors)}
        self._stack(factors, block_factors)
        self.wholes = [item for item in deltas.values() if isinstance(item, Whole)]
        self.whole_owner = torch.tensor([k for k in deltas if k not in factors], dtype=torch.long)
        self.whole_strength = torch.tensor([block_factors[k] for k in deltas if k not in factors], dtype=torch.float32)
        self._row_gates: tuple[object, torch.Tensor, torch.Tensor] | None = None
        self._moved_to: torch.device | None = None

    def _stack(self, factors: Mapping[int, Factors], block_factors: Mapping[int, float]) -> None:
        dtype = torch.float32 if not factors else next(iter(factors.values())).down.dtype
        for item in factors.values():
            dtype = torch.promote_types(torch.promote_types(dtype, item.down.dtype), item.up.dtype)
        # without factors: no rank at all
        self.down = torch.cat([item.down.to(dtype) for item in factors.values()] or [torch.empty(0, 0)])
        self.up = torch.cat([item.up.to(dtype) for item in factors.values()] or [torch.empty(0, 0)], dim=1)
        ranks = [(k, item.scale * block_factors[k]) for k, item in factors.items() for _ in range(len(item.down))]
        self.owner = torch.tensor([k for k, _ in ranks], dtype=torch.long)
        self.strength = torch.tensor([strength for _, strength in ranks], dtype=torch.float32)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(out, in) of the weight, flattened; a vector is one column."""
        weight = self.target.weight()
        rows = len(weight) if self.target.rows is None else self.target.rows.stop - self.target.rows.start
        return rows, weight[0].numel()

    def untouched(self) -> torch.Tensor | None:
        """The weight that the deltas without thin factors start from, in the target's own rows: the model's, without
        what the host itself has added to it."""
        weight = self.target.weight()
        relative = any(whole.delta.needs_weight for whole in self.wholes)
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
    def signature(self) -> tuple:
        """Layers of equal signature can be merged in one batched product."""
        if self.wholes:
            return (id(self),)
        weight = self.target.weight()
        return (*self.up.shape, self.down.shape[1], self.up.dtype, weight.dtype, weight.device)

    def move(self, device: torch.device) -> None:
        """Brings the deltas to the device where the layer is computed."""
        if self._moved_to != device:
            self.down, self.up = self.down.to(device), self.up.to(device)
            self.owner, self.strength = self.owner.to(device), self.strength.to(device)
            self.wholes = [whole.to(device) for whole in self.wholes]
            self._moved_to = device

    def release(self) -> None:
        """Lets go of what is kept between calls."""

    def gates(self, weights: torch.Tensor) -> torch.Tensor:
        """g for λ of shape (rows, LoRAs): (rows, ranks)."""
        return weights[:, self.owner] * self.strength

    def whole_gates(self, weights: torch.Tensor) -> torch.Tensor:
        """Of the deltas without thin factors, (rows, wholes); λ on the CPU, where it is known which are 0."""
        return weights.cpu()[:, self.whole_owner] * self.whole_strength

    def write_merged(self, original: torch.Tensor, merged: torch.Tensor, weights: torch.Tensor) -> None:
        """W' = W + U·diag(g)·D + Σ g·ΔW(W), rounded once, into `merged`: (out, in) or the weight's own shape; weights λ
        (1, LoRAs)."""
        total = weighted_sum(self.wholes, self.whole_gates(weights)[0].tolist(), self.untouched())
        if len(self.owner):
            dtype = torch.promote_types(self.up.dtype, torch.float32)
            with unrounded(original.device):
                thin = (self.up * self.gates(weights.to(original.device))[0]).to(dtype) @ self.down.to(dtype)
            total = thin.reshape(original.shape) if total is None else total + thin.reshape(original.shape)
        changed = original if total is None else original.to(total.dtype) + total
        merged.copy_(changed.reshape(merged.shape))

    def add_branch(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor,
                   told: torch.Tensor) -> torch.Tensor:
        """y and what the deltas add to it; x (rows, …, in) or (rows, in, h, w), weights λ (rows or 1, LoRAs) on x's
        device, told: the same on the CPU."""
        self.move(x.device)
        if self._row_gates is None or self._row_gates[0] is not weights:
            self._row_gates = (weights, self.gates(weights), self.whole_gates(told))
        _, gates, whole_gates = self._row_gates
        if len(self.owner):
            y = self._add_factors(module, x, y, rows_of(gates, x.shape[0], self.name).to(y.dtype))
        if not self.wholes:
            return y
        return self.add_wholes(module, x, y, self.wholes, rows_of(whole_gates, x.shape[0], self.name))

    def add_wholes(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, wholes: Sequence[Whole],
                   gates: torch.Tensor) -> torch.Tensor:
        """y and what these deltas without thin factors add to it; gates (rows or 1, wholes)."""
        own = self.untouched()
        if self.target.is_bias:
            return add_bias_branch(module, own, wholes, y, gates)
        if self.target.is_norm:
            return add_norm_branch(module, own, wholes, x, y, gates)
        return add_whole_branch(module, own, wholes, x, y, gates)

    def _add_factors(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """y + U·(g ⊙ (D x)); gates (rows or 1, ranks)."""
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

    weights: λ (1, LoRAs), for deltas without thin factors on the CPU; these are computed one layer after the other. Of
    the rest on a GPU batched products save the launches, on a CPU a product per layer saves passes over memory.
    """
    if layers[0].is_dense or layers[0].merges_alone or merged[0].dtype not in MERGEABLE:
        for layer, original, target in zip(layers, originals, merged):
            layer.write_merged(original, target, weights)
        return
    weights = weights.to(merged[0].device)
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
        raise UnknownRowsError(f"SciArt: {name} was called with {rows} rows where {len(gates)} were expected")
    return gates.repeat_interleave(rows // len(gates), dim=0)
