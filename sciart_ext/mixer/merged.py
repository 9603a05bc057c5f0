"""Merged weights of the layers of a stack, W' = W + U·diag(g)·D, all in one tensor and made in one product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .device import is_gpu
from .gates import Gates
from .product import add_times, unrounded
from .slot import Slot, Snapshot, are_channels_last
from .stack import Stack

TOGETHER_ENTRIES = 2**14
"""of one weight: up to these a CPU too merges a stack in one product, for the calls cost more than the passes over
memory that one after the other saves"""


class Weights:
    """Room for merged weights in the model's own precision and format: `matrices` (layers, out, in·kh·kw), and each as
    a parameter of the model."""

    def __init__(self, originals: Sequence[Tensor]):
        first = originals[0]
        self.channels_last = are_channels_last(originals)
        self.matrices = torch.empty(len(originals), len(first), first[0].numel(), dtype=first.dtype,
                                    device=first.device)
        self.parameters = [nn.Parameter(_shaped(matrix, original, self.channels_last), requires_grad=False)
                           for matrix, original in zip(self.matrices, originals)]

    def fits(self, originals: Sequence[Tensor]) -> bool:
        """Whether it is where the originals are now, and as they are."""
        return (self.matrices.device == originals[0].device and self.matrices.dtype == originals[0].dtype
                and self.channels_last == are_channels_last(originals))


class MergedStack:
    """Slots of layers of one stack, all or the first of them, shown during calls of one module.

    `weights` are the ones that are shown, `spare` those that are made for a step to come.
    """

    def __init__(self, stack: Stack, slots: Sequence[Slot]):
        self.stack = stack
        self.slots = tuple(sorted(slots, key=lambda slot: slot.layers[0].number))
        self.loras = stack.loras
        numbers = [slot.layers[0].number for slot in self.slots]
        self._numbers = slice(len(numbers)) if numbers == list(range(len(numbers))) else numbers
        self.weights: Weights | None = None
        self.spare: Weights | None = None
        self._made_for: tuple | None = None
        self._made_from: Snapshot | None = None

    def own(self, gates: Gates) -> tuple[float, ...]:
        """Of these gates, the same in all rows, those that decide the merged weights."""
        return tuple(gates.uniform[k] for k in self.loras)

    def stale(self, gates: Gates) -> Sequence[Slot]:
        """The slots whose merged weight is that of other gates, or of values that the host's parameter had before."""
        own = self.own(gates)
        if own == self._made_for:
            return self._made_from.changed()
        return self.slots if any(own) else []

    def originals(self) -> list[nn.Parameter]:
        """The host's own weights."""
        return [slot.holder[slot.name] for slot in self.slots]

    def make_room(self, originals: Sequence[nn.Parameter]) -> None:
        """Takes memory for the merged weights of these, where there is none yet; what is in it is not right until it is
        written."""
        self._made_for = None
        if self.weights is None or not self.weights.fits(originals):
            self.release()
            self._show(Weights(originals))

    def _show(self, weights: Weights) -> None:
        self.weights = weights
        for slot, parameter in zip(self.slots, weights.parameters):
            slot.merged = parameter

    def write(self, stale: Sequence[Slot], gates: Gates, ranks: Tensor) -> None:
        """Merges anew: `together` all in one product, into the originals that lie in the merged weights already; else
        the slots that are stale, one after the other. ranks: g (1, layers, ranks) of the stack."""
        if self.together:
            self.add_all(self.weights, ranks)
        else:
            self._write_each(stale, ranks)
        self._mark_made(gates, Snapshot(self.slots))

    def _mark_made(self, gates: Gates, source: Snapshot) -> None:
        """The merged weights are those of these gates and of the host's own weights as they were then."""
        self._made_for, self._made_from = self.own(gates), source

    @property
    def together(self) -> bool:
        """Whether one product for all is quicker: on a GPU, and on a CPU of small weights."""
        matrices = self.weights.matrices
        return is_gpu(matrices.device) or matrices[0].numel() <= TOGETHER_ENTRIES

    def _write_each(self, slots: Sequence[Slot], ranks: Tensor) -> None:
        matrices, last = self.weights.matrices, self.weights.channels_last
        copy = self.stack.on(matrices.device, matrices.dtype, last)
        for slot in slots:
            number = slot.layers[0].number
            down, up = copy.of_layer[number]
            add_times(_matrix(slot.target.weight(), last), (up * ranks[0, number]).to(matrices.dtype),
                      down.to(matrices.dtype).t(), out=_matrix(slot.merged, last))

    def add_all(self, weights: Weights, ranks: Tensor) -> None:
        """Adds U·diag(g)·D of every layer to what lies in the weights; ranks: g (1, layers, ranks) of the stack."""
        matrices = weights.matrices
        copy = self.stack.on(matrices.device, matrices.dtype, weights.channels_last)
        down, up, gates = copy.down[self._numbers], copy.up[self._numbers], ranks[0, self._numbers]
        if up.shape[1] <= down.shape[2]:  # the smaller factor is multiplied by g, in single precision
            up, down = _times_gates(up, gates[:, None, :], matrices.dtype), down.to(matrices.dtype)
        else:
            up, down = up.to(matrices.dtype), _times_gates(down, gates[:, :, None], matrices.dtype)
        matrices.baddbmm_(up, down)

    def show_spare(self, gates: Gates, source: Snapshot) -> None:
        """What was made for these gates, from the host's own weights as they were then, is shown from now on; what was
        shown till now is the next spare."""
        before = self.weights
        self._show(self.spare)
        self.spare = before
        self._mark_made(gates, source)

    def release(self) -> None:
        self.weights = self.spare = self._made_for = self._made_from = None
        for slot in self.slots:
            slot.release()


@torch.no_grad()
def write_merged(stale: Sequence[tuple[MergedStack, Sequence[Slot]]], gates: Gates,
                 ranks: Mapping[Stack, Tensor]) -> None:
    """Makes the merged weights of these slots for gates that are the same in all rows; ranks: those of each rank, by
    stack (`GateTable.of`)."""
    originals = [merged.originals() for merged, _ in stale]
    for (merged, _), own in zip(stale, originals):
        merged.make_room(own)
    copy_originals([(own, merged.weights) for (merged, _), own in zip(stale, originals) if merged.together])
    with unrounded(originals[0][0].device):
        for merged, slots in stale:
            merged.write(slots, gates, ranks[merged.stack])


def copy_originals(found: Sequence[tuple[Sequence[nn.Parameter], Weights]]) -> None:
    """Copies the host's own weights of all these stacks in one go."""
    if found:
        torch._foreach_copy_([parameter for _, weights in found for parameter in weights.parameters],
                             [original for originals, _ in found for original in originals])


def _times_gates(factors: Tensor, gates: Tensor, dtype: torch.dtype) -> Tensor:
    """g times the factors, in one kernel."""
    return torch.mul(factors, gates, out=torch.empty_like(factors, dtype=dtype))


def _shaped(matrix: Tensor, like: Tensor, channels_last: bool) -> Tensor:
    """(out, in·kh·kw) as a weight of this shape; a view."""
    if not channels_last:
        return matrix.view(like.shape)
    out, channels, *kernel = like.shape
    return matrix.view(out, *kernel, channels).movedim(-1, 1)


def _matrix(weight: Tensor, channels_last: bool) -> Tensor:
    """The inverse; a view where the weight lies as it says."""
    return (weight.movedim(1, -1) if channels_last else weight).reshape(len(weight), -1)
