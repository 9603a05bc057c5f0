"""The LoRAs with masks that reach one layer: always a branch, each of its ranks multiplied by its token gates too.

LoRAs without masks that reach the same layer are in a layer of their own (`layer.py`), which may be merged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ..lora.kinds import BIAS
from .branch import add_thin_branch
from .cost import place_of
from .fit import Factors
from .gates import Gates
from .kept import Room
from .layer import Layer
from .targets import Target
from .token_gates import RowGates
from .whole import Whole, add_product, add_vector


class MaskedLayer(Layer):
    """owner: the LoRA of each gate (`layer_factors.varying_factors`); levels: of the UNet (`build.levels_of`)."""

    def __init__(self, name: str, target: Target, deltas: Mapping[int, Factors | Whole],
                 block_factors: Mapping[int, float], room: Room, owner: Mapping[int, int], levels: int,
                 untouched: Callable[[Target], Tensor] | None = None):
        super().__init__(name, target, deltas, block_factors, room, untouched)
        self._place = place_of(name.removesuffix(BIAS), levels)
        self._owner = owner

    @functools.cached_property
    def rank_owners(self) -> tuple[int, ...]:
        """The LoRA of each of its ranks."""
        return tuple(self._owner[k] for k, item in self.factors.items() for _ in range(len(item.down)))

    @property
    def can_merge(self) -> bool:
        """Never: places of a call have other weights than others."""
        return False

    def is_silent(self, gates: Gates) -> bool:
        """Whether each of its LoRAs has a gate of 0 in every row. Such rows need no masks, also where other LoRAs act
        in some of them alone: the rows that masks are found in are of this kind."""
        return gates.once(("silent", self.loras), lambda: not any(row[k] for row in gates.rows for k in self.loras))

    def add_masked(self, module: nn.Module, x: Tensor, y: Tensor, gates: Gates, places: RowGates) -> Tensor:
        """y and what the deltas add to it where their masks are; x (rows, …, in) or (rows, in, h, w), gates spread
        before (`GateTable`)."""
        own_gates = self.row_gates
        if own_gates is not None:
            spread = beside(own_gates, y) * places.of(self._place, self.rank_owners, y)
            y = add_thin_branch(module, x, y, self.stack.on(y.device, y.dtype).of_layer[self.number], spread)
        for k in self.wholes:
            if gates.acts((k,)):
                y = self._add_whole(k, module, x, y, gates, places)
        return y

    def _add_whole(self, k: int, module: nn.Module, x: Tensor, y: Tensor, gates: Gates, places: RowGates) -> Tensor:
        own = gates.of(((k, self.strengths[k]),)).on(y.device)
        spread = (beside(own, y) * places.of(self._place, (self._owner[k],), y)).to(y.dtype)
        whole, weight = self.placed.on(k, y.device, y.dtype), self.untouched()
        if self.target.is_bias or self.target.is_norm:
            return add_vector(module, weight, whole, None if self.target.is_bias else x, y, spread)
        return add_product(module, x, y, lambda: whole.of(weight), spread)


def beside(values: Tensor, y: Tensor) -> Tensor:
    """(rows or 1, n), shaped so that n stands where the channels of y are."""
    return values[:, :, None, None] if y.dim() == 4 else values.view(len(values), *[1] * (y.dim() - 2), -1)
