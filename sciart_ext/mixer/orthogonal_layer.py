"""A layer whose LoRAs leave their directions to those of larger weight (`combine.orthogonal`): products of factors
still, and other ones only where the order of the weights is another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..combine.orthogonal import Product, order_of, orthogonal
from .branch import add_thin_branch, repeats_of, rows_of
from .fit import Factors
from .gates import Gates, pinned, sent
from .kept import Kept, Room
from .layer import MERGEABLE, Layer, write_sum
from .product import add_times, unrounded
from .row_groups import RowGroups
from .stack import Thin
from .targets import Target

if TYPE_CHECKING:
    from ..recipe.combining import Combination

# Orders of a layer's LoRAs whose factors are kept: rows in which some are silent have orders of their own.
ORDERS_KEPT = 8


class Reduced(NamedTuple):
    """What is left of all LoRAs that act, scales within; strengths: (LoRA, block's factor) of each rank."""

    factors: Thin
    strengths: tuple[tuple[int, float], ...]

    @property
    def nbytes(self) -> int:
        return sum(factor.nbytes for factor in self.factors)

    def each(self, change: Callable[[Tensor], Tensor]) -> Reduced:
        """The same with both factors changed."""
        return Reduced(Thin(*map(change, self.factors)), self.strengths)


class OrthogonalLayer(Layer):
    """Merged on its own; where it branches, rows of the same order share their factors."""

    merges_alone = True

    def __init__(self, name: str, target: Target, factors: Mapping[int, Factors], block_factors: Mapping[int, float],
                 combination: Combination, room: Room):
        super().__init__(name, target, factors, block_factors, room)
        self._settings = combination.settings
        self._strengths = tuple(self.strengths.items())
        self._by_order: OrderedDict[tuple[int, ...], Reduced] = OrderedDict()
        self._moved: Kept[Reduced] = Kept(room, newest=True)

    def write_merged(self, original: Tensor, merged: Tensor, gates: Gates) -> None:
        order = self._order_of(gates.of(self._strengths).uniform)
        if not order:
            merged.copy_(original)
            return
        as_they_lie = original.dtype in MERGEABLE and original.is_contiguous() and merged.is_contiguous()
        dtype = original.dtype if as_they_lie else torch.float32
        (down, up), strengths = self.in_order(order, original.device, dtype)
        with unrounded(original.device):
            up = torch.mul(up, gates.of(strengths).on(original.device), out=torch.empty_like(up))
            if as_they_lie:
                add_times(original.view(len(original), -1), up, down.t(), out=merged.view(len(merged), -1))
            else:
                write_sum(original, up @ down, merged)

    def add_branch(self, module: nn.Module, x: Tensor, y: Tensor, gates: Gates) -> Tensor:
        own = gates.of(self._strengths)
        repeats = repeats_of(len(own.rows), len(x), self.name) if own.uniform is None else len(x)
        groups = own.once(("orders", repeats, y.device), lambda: RowGroups(
            [self._order_of(row) for row in own.rows], repeats, y.device))
        changed = []
        for order, rows, x_rows, y_rows in zip(groups.keys, groups.rows, groups.of(x), groups.of(y)):
            if order:
                factors, strengths = self.in_order(order, y.device, y.dtype)
                ranks = gates.of(strengths, None if own.uniform else rows).on(y.device)
                y_rows = add_thin_branch(module, x_rows, y_rows, factors, rows_of(ranks, len(x_rows), self.name))
            changed.append(y_rows)
        return groups.joined(changed)

    def in_order(self, order: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Reduced:
        """The factors that are left in this order of the LoRAs that act: found once in main memory, and kept where the
        layer is computed as far as there is room."""
        if order not in self._by_order:
            self._by_order[order] = self._reduced(order)
            while len(self._by_order) > ORDERS_KEPT:
                self._by_order.popitem(last=False)
                self._moved.drop_all(lambda key: key[0] not in self._by_order)
        self._by_order.move_to_end(order)
        reduced, key = self._by_order[order], (order, device, dtype)
        if (device.type, dtype) == ("cpu", reduced.factors.up.dtype):
            return reduced
        moved = self._moved.get(key, lambda: reduced.each(lambda factor: sent(factor, device).to(dtype)))
        if key not in self._moved and device.type != "cpu":
            self._by_order[order] = reduced.each(partial(pinned, device=device))
        return moved

    def release(self) -> None:
        super().release()
        self._moved.drop_all()

    def _order_of(self, weights: tuple[float, ...]) -> tuple[int, ...]:
        return order_of(dict(zip(self.loras, weights)))

    def _reduced(self, order: tuple[int, ...]) -> Reduced:
        products = {k: Product(self.factors[k].up.double() * self.factors[k].scale, self.factors[k].down.double())
                    for k in order}
        left = orthogonal(products, order, self._settings.directions, self._settings.strength)
        strengths = tuple((k, self.strengths[k]) for k, product in left.items() for _ in range(len(product.down)))
        return Reduced(Thin(torch.cat([down for _, down in left.values()]).float(),
                            torch.cat([up for up, _ in left.values()], 1).float()), strengths)
