"""The merged weights of the next step, made on a stream of their own while this step runs.

They take the memory of merged weights once more. Streams are CUDA's; on other devices the weights are made early, which
gains nothing, but is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .gate_table import GateTable
from .gates import Gates
from .merged import MergedStack, Weights, copy_originals
from .product import unrounded
from .slot import Snapshot


class Ahead:
    """What is made ahead for the stacks of one module."""

    def __init__(self, stacks: Sequence[MergedStack], table: GateTable):
        self._stacks = stacks
        self._table = table
        self._stream: torch.cuda.Stream | None = None
        self._made: tuple[tuple[float, ...], list[tuple[MergedStack, Snapshot]]] | None = None

    @torch.no_grad()
    def make(self, gates: Gates, device: torch.device) -> None:
        """Begins with the stacks whose gates, the same in all rows, will have changed; what is shown now stays."""
        self.forget()
        changing = [stack for stack in self._stacks if stack.weights is not None and stack.stale(gates)]
        originals = [stack.originals() for stack in changing]
        for stack, own in zip(changing, originals):
            if stack.spare is None or not stack.spare.fits(own):
                stack.spare = Weights(own)
        with self._apart(device), unrounded(device):
            ranks = self._table.of(gates, device)
            copy_originals([(own, stack.spare) for stack, own in zip(changing, originals)])
            for stack in changing:
                stack.add_all(stack.spare, ranks[stack.stack])
        self._made = (gates.uniform, [(stack, Snapshot(stack.slots)) for stack in changing])

    def take(self, gates: Gates) -> None:
        """Shows what was made for these gates, where the host's own weights are still those it was made from."""
        if self._made is None or self._made[0] != gates.uniform:
            return
        _, made = self._made
        self.forget()
        for stack, source in made:
            if not source.changed():
                stack.show_spare(gates, source)

    def forget(self) -> None:
        """Nothing is taken of what was made; the device is done with it before its memory is used again."""
        self._made = None
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    @contextmanager
    def _apart(self, device: torch.device) -> Iterator[None]:
        """What is launched in it runs beside the model, once all that was launched before is done."""
        if device.type != "cuda":
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            yield
