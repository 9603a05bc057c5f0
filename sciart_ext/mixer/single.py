"""The merged weight of a slot whose layers are no plain sums of thin factors, or are parts of one parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .gates import Gates
from .slot import Slot, Snapshot


class MergedAlone:
    """One slot; made from its layers, one after the other."""

    def __init__(self, slot: Slot):
        self.slots = [slot]
        self.slot = slot
        self.loras = [k for layer in slot.layers for k in layer.loras]
        self._made_for: tuple | None = None
        self._made_from: Snapshot | None = None

    def stale(self, gates: Gates) -> Sequence[Slot]:
        """The slot, where its merged weight is that of other gates, or of values that the host's parameter had before.
        """
        own = tuple(gates.uniform[k] for k in self.loras)
        if not any(own):
            return []
        return self._made_from.changed() if own == self._made_for else self.slots

    def write(self, gates: Gates) -> None:
        slot, weight = self.slot, self.slot.target.weight()
        if slot.merged is None or slot.merged.device != weight.device or slot.merged.dtype != weight.dtype:
            slot.merged = nn.Parameter(torch.empty_like(weight), requires_grad=False)
        self._made_for = None
        if slot.target.rows is None:
            slot.layers[0].write_merged(weight, slot.merged, gates)
        else:
            slot.merged.copy_(weight)
            for layer in slot.layers:
                part = slot.merged[layer.target.rows]
                layer.write_merged(part.clone(), part, gates)
        self._made_from = Snapshot(self.slots)
        self._made_for = tuple(gates.uniform[k] for k in self.loras)

    def release(self) -> None:
        self._made_for = self._made_from = None
        self.slot.release()
