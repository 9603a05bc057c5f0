"""Layers whose LoRAs are joined otherwise than by their sum:  W' = W + C(λ_1 ΔW_1, …, λ_n ΔW_n)  (`combine`).

What the files alone decide is found once; a change of gates costs what combining costs. Where rows differ, each
distinct row of gates has a C of its own, which is kept while it is used, as far as there is room (`kept.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..combine.orthogonal import Product, order_of, orthogonal
from ..combine.sparse import SparseCombination, dense
from ..errors import SciArtError
from ..lora.dense import Dense
from ..lora.low_rank import LowRank
from .fit import Factors
from .kept import KeptDeltas, Room
from .layer import Layer, rows_of
from .product import unrounded
from .targets import Target
from .whole import Whole

if TYPE_CHECKING:
    from ..combine.settings import Combination

# Orders of a layer's LoRAs whose factors are kept: rows in which some are silent have orders of their own.
ORDERS_KEPT = 8


def combined_layer(name: str, target: Target, deltas: Mapping[int, Factors | Whole], block_factors: dict[int, float],
                   combination: Combination, names: Mapping[int, str], room: Room,
                   untouched: Callable[[Target], torch.Tensor] | None = None) -> Layer:
    """One layer; names: of the LoRAs that reach it, by index. Vectors have no directions to leave: `orthogonal` adds
    them up. Raises `SciArtError` for deltas that the method does not take."""
    if combination.method != "orthogonal":
        return SparseLayer(name, target, deltas, block_factors, combination, names, room, untouched)
    if target.is_bias or target.is_norm:
        return Layer(name, target, deltas, block_factors, untouched)
    for k, item in deltas.items():
        if isinstance(item, Whole):
            raise SciArtError("combine", f"{names[k]} is {item.delta.kind}, whose changes have no thin factors; "
                                         "accepted: linear, ties, dare-linear, dare-ties, magnitude-prune")
    return OrthogonalLayer(name, target, deltas, block_factors, combination)


class CombinedLayer(Layer):
    """A layer that is merged on its own, and whose branch acts row by row of gates."""

    merges_alone = True

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: dict[int, float], untouched: Callable[[Target], torch.Tensor] | None = None):
        super().__init__(name, target, deltas, block_factors, untouched)
        self.block_factors = block_factors
        self.scales = {k: item.scale for k, item in deltas.items() if isinstance(item, Factors)}
        self._groups: tuple[object, list[tuple[tuple, torch.Tensor]]] | None = None

    @property
    def signature(self) -> tuple:
        return (id(self),)

    def products(self) -> dict[int, LowRank]:
        """ΔW of each LoRA with thin factors, without block factor."""
        parts = {k: (self.owner == k).nonzero().flatten() for k in self.scales}
        return {k: LowRank(self.down[part], self.up[:, part], self.scales[k]) for k, part in parts.items()}

    def weights_of(self, gates: Sequence[float]) -> dict[int, float]:
        """λ with the block's factor, of each LoRA that reaches this layer."""
        return {k: gates[k] * self.block_factors[k] for k in self.loras}

    def rows_by(self, key: Callable[[tuple[float, ...]], tuple], weights: torch.Tensor, rows: int,
                ) -> list[tuple[tuple, torch.Tensor]]:
        """The rows of a call for which `key` of their gates is the same: (the gates of the first, their numbers)."""
        if self._groups is None or self._groups[0] is not weights:
            self._groups = (weights, [tuple(row) for row in weights.tolist()])
        gates = self._groups[1]
        every = rows_of(torch.arange(len(gates)), rows, self.name).tolist()
        every = every * rows if len(every) == 1 else every
        grouped: dict[tuple, list[int]] = {}
        for row, number in enumerate(every):
            grouped.setdefault(key(gates[number]), []).append(row)
        return [(gates[every[found[0]]], torch.tensor(found)) for found in grouped.values()]


class SparseLayer(CombinedLayer):
    """LoRAs thinned and joined entry by entry (`combine.sparse`): C is a dense matrix."""

    is_dense = True

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: dict[int, float], combination: Combination, names: Mapping[int, str], room: Room,
                 untouched: Callable[[Target], torch.Tensor] | None):
        super().__init__(name, target, deltas, block_factors, untouched)
        self._kept = KeptDeltas(room)
        self._combine = SparseCombination(combination, name, names)
        self._shape = next(iter(self.products().values())).shape if self.scales else self.wholes[0].delta.shape

    @torch.no_grad()
    def delta(self, gates: Sequence[float], weight: torch.Tensor) -> torch.Tensor | None:
        """C (out, in) beside the model's untouched weight; None where no LoRA acts."""
        weights = self.weights_of(gates)
        if not any(weights.values()):
            return None
        with unrounded(weight.device):
            matrices = {k: dense(item) for k, item in self.products().items() if weights[k]}
            for k, whole in zip(self.whole_owner.tolist(), self.wholes):
                if weights[k]:
                    matrices[k] = whole.of(weight).reshape(len(weight), -1)
            return self._combine({k: matrices[k] for k in self.loras if k in matrices}, weights)

    def kept_delta(self, gates: Sequence[float], weight: torch.Tensor) -> torch.Tensor:
        """The same where a LoRA acts, for branches: kept for the next call where it depends on the files alone."""
        if any(whole.delta.needs_weight for whole in self.wholes):
            return self.delta(gates, weight)
        key = (*self.weights_of(gates).values(), weight.device)
        return self._kept.get(key, lambda: self.delta(gates, weight))

    def release(self) -> None:
        self._kept.release()

    def write_merged(self, original: torch.Tensor, merged: torch.Tensor, weights: torch.Tensor) -> None:
        delta = self.delta(weights[0].tolist(), self.untouched())
        changed = original if delta is None else original.to(delta.dtype) + delta.reshape(original.shape)
        merged.copy_(changed.reshape(merged.shape))

    def add_branch(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor,
                   told: torch.Tensor) -> torch.Tensor:
        """y + C x, with the C of each row; x, y, weights, told as in `Layer.add_branch`."""
        self.move(x.device)
        changed, order = [], []
        for gates, rows in self.rows_by(lambda gates: tuple(self.weights_of(gates).values()), told, len(x)):
            rows = rows.to(x.device)
            order.append(rows)
            if any(self.weights_of(gates).values()):
                joined = [Whole(Joined(self, gates, self._shape))]
                changed.append(self.add_wholes(module, x[rows], y[rows], joined, torch.ones(1, 1)))
            else:
                changed.append(y[rows])
        return torch.cat(changed)[torch.cat(order).argsort()]


@dataclass(frozen=True, eq=False)
class Joined(Dense):
    """C at these gates, as one delta that is made whenever it is needed and not kept: for a gradient a second time, so
    that not all layers' are held until then."""

    layer: SparseLayer
    gates: tuple[float, ...]
    of_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of_shape

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        return self.layer.kept_delta(self.gates, weight).reshape(weight.shape)


class OrthogonalLayer(CombinedLayer):
    """LoRAs that leave their directions to those of larger weight (`combine.orthogonal`): products of factors still,
    and other ones only where the order of the weights is another."""

    def __init__(self, name: str, target: Target, factors: Mapping[int, Factors], block_factors: dict[int, float],
                 combination: Combination):
        super().__init__(name, target, factors, block_factors)
        self.combination = combination
        self._by_order: dict[tuple[int, ...], Layer] = {}

    def in_order(self, order: tuple[int, ...]) -> Layer:
        """A plain layer of the factors that are left in this order of the LoRAs that act."""
        if order not in self._by_order:
            while len(self._by_order) >= ORDERS_KEPT:
                del self._by_order[next(iter(self._by_order))]
            products = {k: Product(item.up.double().cpu() * item.scale, item.down.double().cpu())
                        for k, item in self.products().items() if k in order}
            reduced = orthogonal(products, order, self.combination.settings.directions)
            left = {k: Factors(down.float(), up.float(), 1.0) for k, (up, down) in reduced.items()}
            self._by_order[order] = Layer(self.name, self.target, left, self.block_factors)
        return self._by_order[order]

    def write_merged(self, original: torch.Tensor, merged: torch.Tensor, weights: torch.Tensor) -> None:
        order = order_of(self.weights_of(weights[0].tolist()))
        if not order:
            merged.copy_(original.reshape(merged.shape))
            return
        layer = self.in_order(order)
        layer.move(merged.device)
        merge([layer], [original], [merged], weights)

    def add_branch(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor,
                   told: torch.Tensor) -> torch.Tensor:
        groups = self.rows_by(lambda gates: order_of(self.weights_of(gates)), told, len(x))
        orders = [order_of(self.weights_of(gates)) for gates, _ in groups]
        if len(groups) == 1:
            return self.in_order(orders[0]).add_branch(module, x, y, weights, told) if orders[0] else y
        gates = rows_of(weights, len(x), self.name)
        parts, numbers = [], []
        for order, (_, rows) in zip(orders, groups):
            rows = rows.to(x.device)
            numbers.append(rows)
            own = gates[rows]
            parts.append(self.in_order(order).add_branch(module, x[rows], y[rows], own, own) if order else y[rows])
        return torch.cat(parts)[torch.cat(numbers).argsort()]
