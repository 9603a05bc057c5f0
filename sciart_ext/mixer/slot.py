"""One parameter of a model and the merged weight that is shown in its place while a call lasts."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import nn

from .gates import Gates
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
        self._source: weakref.ref | None = None
        self._state: tuple | None = None
        self._gates: tuple[float, ...] | None = None

    @property
    def loras(self) -> list[int]:
        """Whose gates decide the merged weight."""
        return [k for layer in self.layers for k in layer.loras]

    def is_current(self, gates: Gates) -> bool:
        """Whether the merged weight is that of these gates and of the values the host's parameter has now."""
        return self._gates == self._own(gates) and self.follows_host()

    def follows_host(self) -> bool:
        """Whether the host's parameter still has the values that the merged weight was made from."""
        weight = self._holder[self._name]
        return (self._source is not None and self._source() is weight
                and self._state == (weight._version, weight.data_ptr(), weight.dtype))

    def mark_current(self, gates: Gates) -> None:
        weight = self._holder[self._name]
        self._source, self._gates = weakref.ref(weight), self._own(gates)
        self._state = (weight._version, weight.data_ptr(), weight.dtype)

    def mark_stale(self) -> None:
        self._source = self._state = self._gates = None

    def _own(self, gates: Gates) -> tuple[float, ...]:
        return tuple(gates.uniform[k] for k in self.loras)

    def write(self, gates: Gates) -> None:
        """Makes the merged weight from the layers, one after the other."""
        weight = self.target.weight()
        if self.merged is None or self.merged.device != weight.device or self.merged.dtype != weight.dtype:
            self.merged = nn.Parameter(torch.empty_like(weight), requires_grad=False)
        self.mark_stale()
        if self.target.rows is None:
            self.layers[0].write_merged(weight, self.merged, gates)
        else:
            self.merged.copy_(weight)
            for layer in self.layers:
                part = self.merged[layer.target.rows]
                layer.write_merged(part.clone(), part, gates)
        self.mark_current(gates)

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
        self.merged = None
        self.mark_stale()


def are_channels_last(weights: Sequence[torch.Tensor]) -> bool:
    """Whether all of them are kernels of which the input channels lie together in memory."""
    return all(weight.dim() == 4 and not weight.is_contiguous()
               and weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
