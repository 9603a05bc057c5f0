"""One parameter of a model and the merged weight that is shown in its place while a call lasts."""

from __future__ import annotations

import weakref

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
        self.source: weakref.ref | None = None
        self.key: tuple | None = None

    def is_current(self, gates: tuple[float, ...]) -> bool:
        """Whether the merged weight is that of these gates and of the values the host's parameter has now."""
        return self.source is not None and self.source() is self.target.weight() and self.key == self._key(gates)

    def mark_current(self, gates: tuple[float, ...]) -> None:
        self.source, self.key = weakref.ref(self.target.weight()), self._key(gates)

    def mark_stale(self) -> None:
        self.source = self.key = None

    def _key(self, gates: tuple[float, ...]) -> tuple:
        weight = self.target.weight()
        own = tuple(gates[k] for layer in self.layers for k in layer.loras)
        return own, weight._version, weight.data_ptr(), weight.device, weight.dtype

    def active(self, gates: tuple[float, ...]) -> bool:
        return any(gates[k] for layer in self.layers for k in layer.loras)

    def present(self) -> None:
        self.original = self.target.weight()
        self.target.module._parameters[self.target.parameter] = self.merged

    def restore(self) -> None:
        if self.original is not None:
            self.target.module._parameters[self.target.parameter] = self.original
            self.original = None

    def release(self) -> None:
        self.merged = None
        self.mark_stale()
