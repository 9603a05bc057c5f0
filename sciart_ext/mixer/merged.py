"""Merged weights of the layers of a stack, W' = W + U·diag(g)·D, all in one tensor and made in one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .device import is_gpu
from .gates import Gates
from .product import add_times, unrounded
from .slot import Slot, are_channels_last
from .stack import Stack

TOGETHER_ENTRIES = 2**14
"""of one weight: up to these a CPU too merges a stack in one product, for the calls cost more than the passes over
memory that one after the other saves"""


class MergedStack:
    """Slots of layers of one stack, all or the first of them, shown during calls of one module.

    `weights` (slots, out, in·kh·kw).
    """

    def __init__(self, stack: Stack, slots: Sequence[Slot]):
        self.stack = stack
        self.slots = tuple(sorted(slots, key=lambda slot: slot.layers[0].number))
        self.loras = stack.loras
        self.weights: Tensor | None = None
        self._made_for: tuple | None = None

    def stale(self, gates: Gates) -> list[Slot]:
        """The slots whose merged weight is that of other gates, or of values that the host's parameter had before."""
        own = tuple(gates.uniform[k] for k in self.loras)
        if own == self._made_for:
            return [slot for slot in self.slots if not slot.follows_host()]
        return list(self.slots) if any(own) else []

    def make_room(self) -> None:
        """Takes memory for the merged weights, in the model's own precision and format, where there is none yet; what
        is in it is not right until it is written."""
        self._made_for = None
        originals = [slot.target.weight() for slot in self.slots]
        first, last = originals[0], are_channels_last(originals)
        if (self.weights is not None and self.weights.device == first.device and self.weights.dtype == first.dtype
                and are_channels_last([self.slots[0].merged]) == last):
            return
        self.release()
        out, width = len(first), first[0].numel()
        self.weights = torch.empty(len(originals), out, width, dtype=first.dtype, device=first.device)
        for slot, original, one in zip(self.slots, originals, self.weights):
            slot.merged = nn.Parameter(_shaped(one, original, last), requires_grad=False)

    def write(self, stale: Sequence[Slot], gates: Gates) -> None:
        """Merges anew: `together` all in one product, into the originals that lie in the merged weights already; else
        the slots that are stale, one after the other."""
        last = are_channels_last([self.slots[0].merged])
        copy = self.stack.on(self.weights.device, self.weights.dtype, last)
        if not self.together:
            for slot in stale:
                down, up = copy.of_layer[slot.layers[0].number]
                own = self.stack.gates[0, slot.layers[0].number]
                add_times(_matrix(slot.target.weight(), last), (up * own).to(up.dtype), down.t(),
                          out=_matrix(slot.merged, last))
        else:
            numbers = [slot.layers[0].number for slot in self.slots]
            chosen = slice(len(numbers)) if numbers == list(range(len(numbers))) else numbers
            self._add_all(copy.down[chosen], copy.up[chosen], self.stack.gates[0, chosen])
        for slot in stale:
            slot.mark_current()
        self._made_for = tuple(gates.uniform[k] for k in self.loras)

    @property
    def together(self) -> bool:
        """Whether one product for all is quicker: on a GPU, and on a CPU of small weights."""
        return is_gpu(self.weights.device) or self.weights[0].numel() <= TOGETHER_ENTRIES

    def _add_all(self, down: Tensor, up: Tensor, gates: Tensor) -> None:
        if up.shape[1] <= down.shape[2]:  # the smaller factor is multiplied by g, in single precision
            up = torch.mul(up, gates[:, None, :], out=torch.empty_like(up))
        else:
            down = torch.mul(down, gates[:, :, None], out=torch.empty_like(down))
        self.weights.baddbmm_(up, down)

    def release(self) -> None:
        self.weights = self._made_for = None
        for slot in self.slots:
            slot.release()


@torch.no_grad()
def write_merged(stale: Sequence[tuple[MergedStack, Sequence[Slot]]], gates: Gates) -> None:
    """Makes the merged weights of these slots for gates that are the same in all rows, spread before (`GateTable`)."""
    for merged, _ in stale:
        merged.make_room()
    slots = [slot for merged, _ in stale if merged.together for slot in merged.slots]
    if slots:
        torch._foreach_copy_([slot.merged for slot in slots], [slot.target.weight() for slot in slots])
    for merged, slots in stale:
        with unrounded(merged.weights.device):
            merged.write(slots, gates)


def _shaped(matrix: Tensor, like: Tensor, channels_last: bool) -> Tensor:
    """(out, in·kh·kw) as a weight of this shape; a view."""
    if not channels_last:
        return matrix.view(like.shape)
    out, channels, *kernel = like.shape
    return matrix.view(out, *kernel, channels).movedim(-1, 1)


def _matrix(weight: Tensor, channels_last: bool) -> Tensor:
    """The inverse; a view where the weight lies as it says."""
    return (weight.movedim(1, -1) if channels_last else weight).reshape(len(weight), -1)
