"""Deltas of a mixer's layers that are kept between calls, as far as there is room for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch


class Room:
    """How many bytes the layers of one mixer may keep together."""

    def __init__(self, limit: float):
        self.limit = limit
        self.used = 0


class KeptDeltas:
    """The deltas of one layer that were used last, by what decides them."""

    def __init__(self, room: Room):
        self._room = room
        self._deltas: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The delta of this key; made where it is not kept, and then kept: in place of this layer's older ones where
        there is no room."""
        if key in self._deltas:
            self._deltas.move_to_end(key)
            return self._deltas[key]
        delta = make()
        nbytes = delta.numel() * delta.element_size()
        while self._deltas and self._room.used + nbytes > self._room.limit:
            self._drop(next(iter(self._deltas)))
        if self._room.used + nbytes <= self._room.limit:
            self._deltas[key] = delta
            self._room.used += nbytes
        return delta

    def release(self) -> None:
        """Lets go of all."""
        for key in list(self._deltas):
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        delta = self._deltas.pop(key)
        self._room.used -= delta.numel() * delta.element_size()
