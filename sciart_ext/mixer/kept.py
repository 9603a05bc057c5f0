"""What a mixer's layers keep between calls on the device where they are computed, as far as there is room for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What takes memory: tensors do."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Room:
    """How many bytes the layers of one mixer may keep together; wanted: how many they would if there were enough."""

    def __init__(self, limit: float):
        self.limit = limit
        self.used = 0
        self.wanted = 0

    @property
    def holds_all(self) -> bool:
        """Whether all that is wanted may be kept."""
        return self.wanted <= self.limit

    def has(self, nbytes: int) -> bool:
        """Whether so many more may be kept now."""
        return self.used + nbytes <= self.limit


class Kept(Generic[T]):
    """What one layer keeps, by what decides it. newest: where there is no more room, older ones make way."""

    def __init__(self, room: Room, newest: bool = False):
        self._room = room
        self._newest = newest
        self._held: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives for this key, made once while it is kept."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        made = make()
        if self._newest:
            while self._held and not self._room.has(made.nbytes):
                self.drop(next(iter(self._held)))
        if self._room.has(made.nbytes):
            self._held[key] = made
            self._room.used += made.nbytes
        return made

    def held(self) -> list[T]:
        """All that is kept."""
        return list(self._held.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return sum(item.nbytes for item in self._held.values())

    def drop(self, key: Hashable) -> None:
        self._room.used -= self._held.pop(key).nbytes

    def drop_all(self, which: Callable[[Hashable], bool] = lambda key: True) -> None:
        """Lets go of what is kept by keys of this kind."""
        for key in [key for key in self._held if which(key)]:
            self.drop(key)
