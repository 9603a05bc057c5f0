"""The gates of every rank of every layer, g = λ·s, found for all in two kernels and laid before the stacks."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from ..memory import unless_too_large
from .gates import Gates, sent
from .stack import Stack, too_large


class GateTable:
    """Of some stacks. What is laid before them stays where it is, so that a layer finds its own gates once: the next
    gates of as many rows are written over it."""

    def __init__(self, stacks: Iterable[Stack]):
        self.stacks = list(stacks)
        self._owners = torch.tensor([k for stack in self.stacks for k in stack.owners()], dtype=torch.long)
        self._strengths = torch.tensor([s for stack in self.stacks for s in stack.strengths()], dtype=torch.float32)
        self._on: tuple[torch.device, Tensor, Tensor] | None = None
        self._laid: tuple[Tensor, list[Tensor]] | None = None
        """the table that lies before the stacks, and the part of each; one that may be written over"""

    def spread(self, gates: Gates, device: torch.device) -> None:
        """Puts g before every stack."""
        if not self.stacks:
            return
        if self._laid is not None and _can_be_written_over(self._laid[0], len(gates.rows), device):
            table, parts = self._laid
            self._made(gates, device, out=table)
        else:
            table = self._made(gates, device)
            parts = self._parts(table)
            self._laid = None if torch.is_grad_enabled() else (table, parts)
        for stack, part in zip(self.stacks, parts):
            stack.take_gates(part if gates.acts(stack.loras) else None)

    def of(self, gates: Gates, device: torch.device) -> dict[Stack, Tensor | None]:
        """g of each stack: (rows or 1, layers, ranks), float32; None where all are 0."""
        if not self.stacks:
            return {}
        return {stack: part if gates.acts(stack.loras) else None
                for stack, part in zip(self.stacks, self._parts(self._made(gates, device)))}

    def _made(self, gates: Gates, device: torch.device, out: Tensor | None = None) -> Tensor:
        if self._on is None or self._on[0] != device:
            self._on = (device, *unless_too_large(functools.partial(self._sent, device),
                                                  functools.partial(too_large, self.stacks)))
        _, owners, strengths = self._on
        return torch.index_select(gates.on(device), 1, owners, out=out).mul_(strengths)

    def _parts(self, table: Tensor) -> list[Tensor]:
        sizes = [len(stack.layers) * stack.ranks for stack in self.stacks]
        return [part.unflatten(1, (len(stack.layers), stack.ranks))
                for stack, part in zip(self.stacks, table.split(sizes, 1))]

    def _sent(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return sent(self._owners, device), sent(self._strengths, device)

    def release(self) -> None:
        """Lets go of what lies on a device."""
        self._on = self._laid = None


def _can_be_written_over(table: Tensor, rows: int, device: torch.device) -> bool:
    """Not where a gradient may still want the gates that an earlier call had, nor a table that was made for inference
    outside of it."""
    return (len(table) == rows and table.device == device and not torch.is_grad_enabled()
            and table.is_inference() == torch.is_inference_mode_enabled())
