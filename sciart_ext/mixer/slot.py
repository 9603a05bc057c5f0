"""One parameter of a model and the merged weight that is shown in its place while a call lasts."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import nn

from .layer import Layer
from .targets import Target


class Slot:
    """One parameter of the model, its layers (several where q, k, v are packed), and its merged weight."""

    def __init__(self, target: Target):
        self.target = target
        self.layers: list[Layer] = []
        self.original: nn.Parameter | None = None
        self.merged: nn.Parameter | None = None
        self._holder = target.module._parameters
        self._name = target.parameter
        self._source: tuple | None = None
        self._remembered: tuple | None = None

    def follows_host(self) -> bool:
        """Whether the host's parameter still has the values that the merged weight was made from."""
        return self._is(self._source)

    def mark_current(self) -> None:
        """The merged weight is that of the values the host's parameter has now."""
        self._source = self._now()

    def remember(self) -> None:
        """A weight to come is made from the values that the host's parameter has now."""
        self._remembered = self._now()

    def is_as_remembered(self) -> bool:
        """Whether it still has them."""
        return self._is(self._remembered)

    def _now(self) -> tuple:
        weight = self._holder[self._name]
        return weakref.ref(weight), weight._version, weight.data_ptr(), weight.dtype

    def _is(self, source: tuple | None) -> bool:
        weight = self._holder[self._name]
        return (source is not None and source[0]() is weight
                and source[1:] == (weight._version, weight.data_ptr(), weight.dtype))

    @property
    def nbytes(self) -> int:
        """Of the merged weight that is held."""
        return 0 if self.merged is None else self.merged.numel() * self.merged.element_size()

    def present(self) -> None:
        self.original = self._holder[self._name]
        self._holder[self._name] = self.merged

    def restore(self) -> None:
        if self.original is not None:
            self._holder[self._name] = self.original
            self.original = None

    def release(self) -> None:
        self.merged = self._source = self._remembered = None


def are_channels_last(weights: Sequence[torch.Tensor]) -> bool:
    """Whether all of them are kernels of which the input channels lie together in memory."""
    return all(weight.dim() == 4 and not weight.is_contiguous()
               and weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
