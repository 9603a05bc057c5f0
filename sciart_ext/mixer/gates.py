"""The gates of one call of a model: as numbers, and on its device, where nothing waits for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Gates:
    """λ for each row of a call, or one row for all: `rows`, each with one number per LoRA (and per factor that varies).
    """

    def __init__(self, rows: Sequence[tuple[float, ...]]):
        self.rows = tuple(rows)
        self.uniform = self.rows[0] if len(self.rows) == 1 else None
        """the gates that all rows have; None where rows differ"""
        self._sent: tuple[torch.device, Tensor] | None = None
        self._made: dict[Hashable, object] = {}

    def acts(self, loras: Iterable[int]) -> bool:
        """Whether one of these has a gate other than 0; where rows differ it is not asked."""
        return self.uniform is None or any(self.uniform[k] for k in loras)

    def without(self, loras: frozenset[int]) -> Gates:
        """The same with gates of 0 for these."""
        if not loras:
            return self

        def derive() -> Gates:
            rows = [tuple(0.0 if k in loras else gate for k, gate in enumerate(row)) for row in self.rows]
            return Gates(rows[:1] if len(set(rows)) == 1 else rows)

        return self.once(("without", loras), derive)

    def on(self, device: torch.device) -> Tensor:
        """(rows, LoRAs), float32."""
        if self._sent is None or self._sent[0] != device:
            self._sent = (device, sent(torch.tensor(self.rows, dtype=torch.float32), device))
        return self._sent[1]

    def of(self, strengths: tuple[tuple[int, float], ...], rows: tuple[int, ...] | None = None) -> Gates:
        """λ·s by (LoRA, s) in place of λ by LoRA, of these rows alone or of all; made once for all layers that ask."""
        def derive() -> Gates:
            chosen = self.rows if rows is None else [self.rows[row] for row in rows]
            derived = [tuple(row[k] * strength for k, strength in strengths) for row in chosen]
            return Gates(derived[:1] if len(set(derived)) == 1 else derived)

        return self.once((strengths, rows), derive)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, which these gates and the key decide; made once."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of main memory on a device. From pinned memory the processor does not wait for the copy, and torch keeps
    that memory until the device has read it."""
    if device.type == "cpu":
        return values
    return pinned(values, device).to(device, non_blocking=can_pin(device.type))


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """The same in main memory that the device reads by itself; as it is where there is no such memory."""
    return values.pin_memory() if can_pin(device.type) else values


@functools.cache
def can_pin(kind: str) -> bool:
    """Whether this torch can pin memory for a type of device: "cpu" and "meta" need none, some GPUs have none."""
    if kind in ("cpu", "meta"):
        return False
    try:
        torch.empty(1).pin_memory()
    except (RuntimeError, NotImplementedError, AssertionError):
        return False
    return True
