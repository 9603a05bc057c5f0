"""A layer whose LoRAs are thinned and joined entry by entry (`combine.sparse`): C is a dense matrix.

Merged, C goes into W' a block of rows at a time. What the files alone decide, the factors and the entries that are
kept, lies where the layer is computed as far as there is room, else it is sent at each change of gates, and not waited
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..combine.deltas import Deltas, Factored
from ..combine.masks import PLACES, Bits, Bools
from ..combine.sparse import Block, SparseCombination
from ..lora.dense import Dense
from .branch import repeats_of
from .fit import Factors
from .gates import Gates, pinned, sent
from .kept import Kept, Room
from .layer import Layer, write_sum
from .product import unrounded
from .row_groups import RowGroups
from .targets import Target
from .whole import Whole

if TYPE_CHECKING:
    from ..recipe.combining import Combination


class SparseLayer(Layer):
    """Merged on its own; where it branches, each distinct row of gates has a C of its own."""

    merges_alone = True
    is_dense = True

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: Mapping[int, float], combination: Combination, names: Mapping[int, str], room: Room,
                 untouched: Callable[[Target], Tensor] | None):
        super().__init__(name, target, deltas, block_factors, room, untouched)
        self._combine = SparseCombination(combination, name, names)
        self._order = [*self.factors, *self.wholes]
        """of the LoRAs in stacks"""
        self._strengths = tuple((k, self.strengths[k]) for k in self._order)
        self._shape = _matrix_shape(deltas[self._order[0]])
        self._room = room
        self._joined: Kept[Tensor] = Kept(room, newest=True)
        self._thin: Kept[Factored] = Kept(room)
        self._masks: Kept[Bits | Bools] = Kept(room)
        self._sendable: Bits | None = None
        self._entries = len(self._order) * self._shape[0] * self._shape[1]
        room.wanted += self._entries + sum(4 * (item.down.numel() + item.up.numel()) for item in self.factors.values())

    def write_merged(self, original: Tensor, merged: Tensor, gates: Gates) -> None:
        weights = gates.of(self._strengths).uniform
        if not any(weights):
            merged.copy_(original)
            return
        with unrounded(original.device):
            for rows, total in self._blocks(weights, self.untouched(), gates):
                write_sum(original[rows], total, merged[rows])

    @torch.no_grad()
    def delta(self, weights: Sequence[float], weight: Tensor, dtype: torch.dtype, gates: Gates) -> Tensor:
        """C (out, in) beside the model's untouched weight, in this precision. weights: λ with the block's factor, of
        the LoRAs in stacks, not all 0; gates: of the call."""
        with unrounded(weight.device):
            combined = torch.empty(self._shape, dtype=dtype, device=weight.device)
            for block in self._blocks(weights, weight, gates):
                combined[block.rows] = block.total
        return combined

    def kept_delta(self, weights: tuple[float, ...], weight: Tensor, dtype: torch.dtype, gates: Gates) -> Tensor:
        """The same, kept for the next call where it depends on the files alone."""
        if any(whole.delta.needs_weight for whole in self.wholes.values()):
            return self.delta(weights, weight, dtype, gates)
        return self._joined.get((weights, weight.device, dtype), lambda: self.delta(weights, weight, dtype, gates))

    def add_branch(self, module: nn.Module, x: Tensor, y: Tensor, gates: Gates) -> Tensor:
        """y + C x, with the C of each row; x, y, gates as in `Layer.add_branch`."""
        own = gates.of(self._strengths)
        repeats = repeats_of(len(own.rows), len(x), self.name) if own.uniform is None else len(x)
        groups = own.once(("groups", repeats, y.device), lambda: RowGroups(own.rows, repeats, y.device))
        changed = []
        for weights, x_rows, y_rows in zip(groups.keys, groups.of(x), groups.of(y)):
            joined = Whole(Joined(self, weights, gates, y.dtype))
            changed.append(self.add_wholes(module, x_rows, y_rows, [joined], ONE) if any(weights) else y_rows)
        return groups.joined(changed)

    def release(self) -> None:
        super().release()
        for kept in (self._joined, self._thin, self._masks):
            kept.drop_all()

    def _blocks(self, weights: Sequence[float], weight: Tensor, gates: Gates) -> Iterator[Block]:
        acting = [number for number, own in enumerate(weights) if own]
        dtype, count, device = self._dtype(weight.dtype), len(self.factors), weight.device
        dense = {number: self._dense(self._order[number], weight).to(dtype) for number in acting if number >= count}
        products = [number for number in acting if number < count]
        thin = self._thin_on(device, dtype, products) if products else None
        own = [weights[number] for number in acting]
        values = self._combine.multipliers(own)
        multipliers = gates.once((values, dtype, device), lambda: sent(torch.tensor(values, dtype=dtype), device))
        return self._combine.blocks(Deltas(thin, list(dense.values()), dtype),
                                    self._masks_on(device, dtype, acting, weight), own, multipliers)

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The precision in which the deltas are combined, beside a weight of this one."""
        wide = torch.float32
        for item in self.factors.values():
            wide = torch.promote_types(wide, torch.promote_types(item.down.dtype, item.up.dtype))
        for whole in self.wholes.values():
            wide = torch.promote_types(wide, whole.delta.wide(dtype))
        return wide

    def _dense(self, k: int, weight: Tensor) -> Tensor:
        return self.placed.on(k, weight.device, weight.dtype).of(weight).reshape(self._shape)

    def _thin_on(self, device: torch.device, dtype: torch.dtype, numbers: Sequence[int]) -> Factored:
        """The factors of these LoRAs; on a CPU cast anew each time, which costs little beside their products."""
        def cast(items: Sequence[Factors]) -> Factored:
            return Factored.of([(sent(item.up, device).to(dtype) * item.scale, sent(item.down, device).to(dtype))
                            for item in items])

        if device.type == "cpu":
            return cast([self.factors[self._order[number]] for number in numbers])
        thin = self._thin.get((device, dtype), lambda: cast(list(self.factors.values())))
        if (device, dtype) not in self._thin:
            self.factors = {k: Factors(pinned(item.down, device), pinned(item.up, device), item.scale)
                            for k, item in self.factors.items()}
        return thin.chosen(numbers)

    def _masks_on(self, device: torch.device, dtype: torch.dtype, numbers: Sequence[int], weight: Tensor,
                  ) -> Bits | Bools:
        """The entries of these LoRAs that are kept: in bits, or on a GPU in bools where those of all layers fit, and
        their factors."""
        if device.type == "cpu":
            return self._bits(device, dtype, numbers, weight)
        every = range(len(self._order))
        masks = self._masks.get(device, lambda: self._moved(device, dtype, every, weight))
        return masks.chosen(numbers)

    def _moved(self, device: torch.device, dtype: torch.dtype, numbers: Sequence[int], weight: Tensor) -> Bits | Bools:
        if self._sendable is None:
            self._sendable = self._bits(device, dtype, numbers, weight).each(partial(pinned, device=device))
            self._combine.kept.update(zip(self._order, self._sendable.packed))
        bits = self._sendable.each(lambda tensor: sent(tensor, device))
        return Bools(bits.whole()) if self._room.holds_all and self._room.has(self._entries) else bits

    def _bits(self, device: torch.device, dtype: torch.dtype, numbers: Sequence[int], weight: Tensor) -> Bits:
        """In main memory; found where the layer is computed."""
        def found(number: int) -> Tensor:
            if number >= len(self.factors):
                return self._dense(self._order[number], weight).to(dtype)
            thin = self._thin_on(device, dtype, [number])
            return thin.up[0] @ thin.down[0]

        packed = [self._combine.bits(self._order[number], self._shape, lambda number=number: found(number))
                  for number in numbers]
        return Bits(torch.stack(packed), PLACES, self._shape)


ONE = Gates([(1.0,)])


@dataclass(frozen=True, eq=False)
class Joined(Dense):
    """C at these weights, as one delta that is made whenever it is needed and not kept: for a gradient a second time,
    so that not all layers' are held until then. It comes in the precision that it is multiplied in."""

    layer: SparseLayer
    weights: tuple[float, ...]
    gates: Gates
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layer._shape

    def of(self, weight: Tensor) -> Tensor:
        return self.layer.kept_delta(self.weights, weight, self.dtype, self.gates).reshape(weight.shape)


def _matrix_shape(item: Factors | Whole) -> tuple[int, int]:
    """(out, in) of a delta, flattened; a vector is one column."""
    if isinstance(item, Factors):
        return len(item.up), item.down.shape[1]
    out, *inputs = item.delta.shape
    return out, torch.Size(inputs).numel()
