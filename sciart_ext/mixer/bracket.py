"""A module during whose calls merged weights are shown: made in time, shown, taken away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence

import torch
from torch import nn

from .ahead import Ahead
from .gate_table import GateTable
from .gates import Gates
from .merged import MergedStack, write_merged
from .single import MergedAlone
from .slot import Shown, Slot


class Bracket:
    """The slots of one module: those of stacks, which are merged together, and single ones."""

    def __init__(self, slots: Sequence[Slot], table: GateTable):
        self.module = slots[0].target.bracket
        by_stack: dict[int, list[Slot]] = {}
        for slot in slots:
            if slot.layers[0].merges_in_stack:
                by_stack.setdefault(id(slot.layers[0].stack), []).append(slot)
        self._stacks = [MergedStack(found[0].layers[0].stack, found) for found in by_stack.values()]
        self._alone = [MergedAlone(slot) for slot in slots if not slot.layers[0].merges_in_stack]
        self._ahead = Ahead(self._stacks, table)
        self._primed: tuple | None = None
        self._acting: Gates | None = None
        self._shown = Shown([])

    @property
    def slots(self) -> list[Slot]:
        """All of them."""
        return [slot for merged in (*self._stacks, *self._alone) for slot in merged.slots]

    @property
    def key(self) -> frozenset[int]:
        """Tells brackets with other slots apart."""
        return frozenset(map(id, self.slots))

    def begin(self) -> None:
        """A pass begins."""
        self._primed = None

    def device(self) -> torch.device | None:
        """Where the weights lie now; None where no slot is left."""
        first = next(iter((*self._stacks, *self._alone)), None)
        return None if first is None else first.slots[0].target.weight().device

    def prime(self, update: Callable[[nn.Module], None], state: Hashable) -> None:
        """Has the host update the weights that are about to be read, unless it has in this state of its own."""
        if self._primed != (state,):
            for slot in self.slots:
                update(slot.target.updated_by)
            self._primed = (state,)

    @torch.no_grad()
    def refresh(self, gates: Gates) -> None:
        """Makes the merged weights anew whose gates, or whose own weight in the model, have changed."""
        self._ahead.take(gates)
        stale = [(stack, found) for stack in self._stacks if (found := stack.stale(gates))]
        if stale:
            write_merged(stale, gates, {stack.stack: stack.stack.gates for stack, _ in stale})
        for alone in self._alone:
            if alone.stale(gates):
                alone.write(gates)

    def present(self, gates: Gates) -> None:
        """Shows the merged weights of the slots in which a LoRA acts."""
        self._shown.restore()
        if self._acting is not gates:
            self._acting = gates
            self._shown = Shown([slot for merged in (*self._stacks, *self._alone) if gates.acts(merged.loras)
                                 for slot in merged.slots])
        self._shown.show()

    def merge_ahead(self, gates: Gates, device: torch.device) -> None:
        """Begins with what the next step will need, while this one runs."""
        self._ahead.make(gates, device)

    def forget_ahead(self) -> None:
        """Lets go of what was begun."""
        self._ahead.forget()
        for stack in self._stacks:
            stack.spare = None

    def restore(self, *_) -> None:
        """Puts the host's own parameters back."""
        self._shown.restore()

    def drop(self, kept: Collection[str]) -> None:
        """Lets go of all slots but those whose layers are called so."""
        self.release()
        for found in (self._stacks, self._alone):
            found[:] = [merged for merged in found if merged.slots[0].layers[0].name in kept]

    def release(self) -> None:
        self._acting = None
        self._ahead.forget()
        for merged in (*self._stacks, *self._alone):
            merged.release()
