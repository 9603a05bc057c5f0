"""Factors of layers of one shape, as one tensor: what is done to one is done to all in one product.

    down (layers, ranks, in·kh·kw)      up (layers, out, ranks)

They are held in main memory in the files' own precision, and while a model is called on a GPU also there, in the
model's. On a CPU there is no second copy, which in single precision would take twice the size of the files: a layer's
factors are cast each time they are used, which costs little beside the model's own work.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import SciArtError
from ..memory import unless_too_large
from .fit import Factors


class Stacked(Protocol):
    """A layer as its stack sees it: the thin factors of its LoRAs, by the index of their gate, and what multiplies each
    gate; and where the stack says that it is."""

    factors: dict[int, Factors]
    strengths: dict[int, float]
    stack: Stack | None
    number: int

    @property
    def ranks(self) -> int: ...

    @property
    def kernel_size(self) -> tuple[int, int]: ...


class Thin(NamedTuple):
    """Of one layer: down (ranks, in·kh·kw), up (out, ranks)."""

    down: Tensor
    up: Tensor


class Copy(NamedTuple):
    """A stack's factors on one device, in one precision; of_layer: those of each layer, views of them."""

    down: Tensor
    up: Tensor
    of_layer: tuple[Thin, ...]


class Stack:
    """The thin factors of layers that have the same shape and the same number of ranks.

    The same LoRAs reach them, `loras`. The layers' own factors become views of it, so that nothing is in memory twice.
    """

    def __init__(self, layers: Sequence[Stacked]):
        self.layers = tuple(layers)
        self.ranks = layers[0].ranks
        self.down, self.up = _stacked(layers)
        self._copies: dict[tuple[torch.device, torch.dtype, bool], Copy] = {}
        self.loras = tuple(layers[0].factors)
        self.gates: Tensor | None = None
        """g (rows or 1, layers, ranks) of the call that runs, float32; None where all are 0"""
        self._by_layer: tuple[Tensor, ...] | None = None
        for number, layer in enumerate(layers):
            layer.stack, layer.number = self, number
            layer.factors = self._views(number, layer.factors)

    def _views(self, number: int, factors: dict[int, Factors]) -> dict[int, Factors]:
        ends, found = 0, {}
        for k, item in factors.items():
            ends, begins = ends + len(item.down), ends
            found[k] = Factors(self.down[number, begins:ends], self.up[number, :, begins:ends], item.scale)
        return found

    @property
    def dtype(self) -> torch.dtype:
        return self.down.dtype

    @property
    def nbytes(self) -> int:
        """Of the factors as they are held."""
        return self.down.numel() * self.down.element_size() + self.up.numel() * self.up.element_size()

    def owners(self) -> list[int]:
        """Which gate each rank of each layer has."""
        return [k for layer in self.layers for k, item in layer.factors.items() for _ in range(len(item.down))]

    def strengths(self) -> list[float]:
        """What each rank's gate is multiplied by."""
        return [item.scale * layer.strengths[k] for layer in self.layers for k, item in layer.factors.items()
                for _ in range(len(item.down))]

    def on(self, device: torch.device, dtype: torch.dtype, channels_last: bool = False) -> Copy:
        """The factors where they are needed: on a GPU in this precision, moved and cast once; on a CPU as they are
        held. channels_last: down is (layers, ranks, kh·kw·in), as kernels lie whose input channels lie together.

        Raises `SciArtError` where they do not fit in the device's memory.
        """
        key = (device, self.dtype if device.type == "cpu" else dtype, channels_last)
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = unless_too_large(functools.partial(self._copy, *key),
                                                        functools.partial(too_large, [self]))
        return copy

    def _copy(self, device: torch.device, dtype: torch.dtype, channels_last: bool) -> Copy:
        down, up = (factor.to(device).to(dtype) for factor in (self.down, self.up))
        if channels_last:
            kernel = self.layers[0].kernel_size
            down = down.unflatten(2, (-1, *kernel)).movedim(2, -1).flatten(2)
        return Copy(down, up, tuple(map(Thin, down.unbind(), up.unbind())))

    def take_gates(self, gates: Tensor | None) -> None:
        """Those of the next call."""
        if gates is not self.gates:
            self.gates, self._by_layer = gates, None

    def gates_of(self, layer: Stacked) -> Tensor | None:
        """g (rows or 1, ranks) of one layer."""
        if self._by_layer is None and self.gates is not None:
            self._by_layer = self.gates.unbind(1)
        return None if self.gates is None else self._by_layer[layer.number]

    def release(self) -> None:
        """Lets go of all that is not in main memory, or is there in another precision."""
        self.take_gates(None)
        self._copies = {key: copy for key, copy in self._copies.items() if copy.down is self.down}


def too_large(stacks: Sequence[Stack]) -> SciArtError:
    """The refusal where what belongs to these does not fit on a device."""
    layers, megabytes = sum(len(stack.layers) for stack in stacks), sum(stack.nbytes for stack in stacks) / 2**20
    return SciArtError("loras", f"out of memory: the factors of {layers} layers, {megabytes:.0f} MB, do not fit beside "
                                "the model; accepted: fewer LoRAs, LoRAs of lower rank, or a smaller picture")


def _stacked(layers: Sequence[Stacked]) -> tuple[Tensor, Tensor]:
    """down and up of all layers; matrices are laid one after the other without a copy of each layer's between."""
    first = [item for layer in layers for item in layer.factors.values()]
    dtype = first[0].down.dtype
    for item in first:
        dtype = torch.promote_types(torch.promote_types(dtype, item.down.dtype), item.up.dtype)
    ranks, inputs, outs = layers[0].ranks, first[0].down.shape[1], first[0].up.shape[0]
    down = torch.empty(len(layers), ranks, inputs, dtype=dtype)
    up = torch.empty(len(layers), outs, ranks, dtype=dtype)
    for number, layer in enumerate(layers):
        ends = 0
        for item in layer.factors.values():
            ends, begins = ends + len(item.down), ends
            down[number, begins:ends] = item.down
            up[number, :, begins:ends] = item.up
    return down, up
