"""One parameter of a model and the merged weight that is shown in its place while a call lasts."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .layer import Layer
from .targets import Target


class Slot:
    """One parameter of the model, its layers (several where q, k, v are packed), and its merged weight."""

    __slots__ = ("_remembered", "holder", "layers", "merged", "name", "source", "target")

    def __init__(self, target: Target):
        self.target = target
        self.layers: list[Layer] = []
        self.merged: nn.Parameter | None = None
        self.holder = target.module._parameters
        self.name = target.parameter
        self.source: tuple | None = None
        self._remembered: tuple | None = None

    def mark_current(self) -> None:
        """The merged weight is that of the values the host's parameter has now."""
        self.source = self._now()

    def remember(self) -> None:
        """A weight to come is made from the values that the host's parameter has now."""
        self._remembered = self._now()

    def is_as_remembered(self) -> bool:
        """Whether it still has them."""
        return _is(self.holder[self.name], self._remembered)

    def _now(self) -> tuple:
        weight = self.holder[self.name]
        return weakref.ref(weight), weight._version, weight.data_ptr(), weight.dtype

    @property
    def nbytes(self) -> int:
        """Of the merged weight that is held."""
        return 0 if self.merged is None else self.merged.numel() * self.merged.element_size()

    def release(self) -> None:
        self.merged = self.source = self._remembered = None


def outdated(slots: Iterable[Slot]) -> list[Slot]:
    """Those whose host's parameter has other values than the merged weight was made from."""
    return [slot for slot in slots if not _is(slot.holder[slot.name], slot.source)]


def _is(weight: torch.Tensor, source: tuple | None) -> bool:
    if source is None:
        return False
    known, version, address, dtype = source
    return (known() is weight and weight._version == version and weight.data_ptr() == address
            and weight.dtype is dtype)


class Shown:
    """Some slots whose merged weights can be shown in place of the host's parameters."""

    def __init__(self, slots: Sequence[Slot]):
        self._slots = slots
        self._hidden: list[nn.Parameter] = []

    def show(self) -> None:
        """Shows them."""
        self._hidden = [slot.holder[slot.name] for slot in self._slots]
        for slot in self._slots:
            slot.holder[slot.name] = slot.merged

    def restore(self) -> None:
        """Puts the host's own parameters back, where others are shown."""
        for slot, parameter in zip(self._slots, self._hidden):
            slot.holder[slot.name] = parameter
        self._hidden = []


def are_channels_last(weights: Sequence[torch.Tensor]) -> bool:
    """Whether all of them are kernels of which the input channels lie together in memory."""
    return all(weight.dim() == 4 and not weight.is_contiguous()
               and weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
