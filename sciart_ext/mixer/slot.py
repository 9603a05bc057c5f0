"""One parameter of a model and the merged weight that is shown in its place while a call lasts."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, getitem, is_

import torch
from torch import nn

from .layer import Layer
from .targets import Target


class Slot:
    """One parameter of the model, its layers (several where q, k, v are packed), and its merged weight."""

    __slots__ = ("holder", "layers", "merged", "name", "target")

    def __init__(self, target: Target):
        self.target = target
        self.layers: list[Layer] = []
        self.merged: nn.Parameter | None = None
        self.holder = target.module._parameters
        self.name = target.parameter

    @property
    def nbytes(self) -> int:
        """Of the merged weight that is held."""
        return 0 if self.merged is None else self.merged.numel() * self.merged.element_size()

    def release(self) -> None:
        self.merged = None


class Snapshot:
    """The host's parameters of some slots as they are now, to tell later which of them are others or have other values.

    Lists of one thing each, not objects of one slot each: looking at them is most of what constant weights cost.
    """

    def __init__(self, slots: Sequence[Slot]):
        self._slots = slots
        self._holders = [slot.holder for slot in slots]
        self._names = [slot.name for slot in slots]
        self._parameters, self._marks = self._look()

    def _look(self) -> tuple[list[nn.Parameter], list[list]]:
        parameters = list(map(getitem, self._holders, self._names))
        return parameters, [list(map(mark, parameters)) for mark in MARKS]

    def changed(self) -> Sequence[Slot]:
        """The slots whose parameter is another or has other values than then."""
        parameters, marks = self._look()
        if all(map(is_, parameters, self._parameters)) and marks == self._marks:
            return []
        pairs = zip(parameters, self._parameters, zip(*marks), zip(*self._marks))
        return [slot for slot, (now, then, now_marked, then_marked) in zip(self._slots, pairs)
                if now is not then or now_marked != then_marked]


MARKS = (attrgetter("_version"), torch.Tensor.data_ptr, attrgetter("dtype"))
"""Writing into a tensor changes its version; setting its `data` its address or its precision."""


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
