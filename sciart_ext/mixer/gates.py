"""The gates of one call of a model: as numbers, and on its device, where nothing waits for them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Gates:
    """λ for each row of a call, or one row for all: `rows`, each with one number per LoRA (and per factor that varies).
    """

    def __init__(self, rows: Sequence[tuple[float, ...]]):
        self.rows = tuple(rows)
        self.uniform = self.rows[0] if len(self.rows) == 1 else None
        """the gates that all rows have; None where rows differ"""
        self._sent: tuple[torch.device, Tensor] | None = None

    def acts(self, loras: Iterable[int]) -> bool:
        """Whether one of these has a gate other than 0; where rows differ it is not asked."""
        return self.uniform is None or any(self.uniform[k] for k in loras)

    def on(self, device: torch.device) -> Tensor:
        """(rows, LoRAs), float32."""
        if self._sent is None or self._sent[0] != device:
            self._sent = (device, sent(torch.tensor(self.rows, dtype=torch.float32), device))
        return self._sent[1]


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of main memory on a device. From pinned memory the processor does not wait for the copy, and torch keeps
    that memory until the device has read it."""
    if device.type == "cpu":
        return values
    return (values.pin_memory() if can_pin() else values).to(device, non_blocking=True)


@functools.cache
def can_pin() -> bool:
    """Whether this torch can pin memory: one without support for a GPU, and that of some GPUs, cannot."""
    try:
        torch.empty(1).pin_memory()
    except (RuntimeError, NotImplementedError, AssertionError):
        return False
    return True
