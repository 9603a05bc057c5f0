"""The deltas of one layer's LoRAs as one tensor (LoRAs, rows, in), made a block of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .masks import chosen


class Factored(NamedTuple):
    """Products ΔW = up · down of several LoRAs, scales within: up (LoRAs, out, rank), down (LoRAs, rank, in), or one
    tensor for each where their ranks differ; all of one precision."""

    up: Tensor | tuple[Tensor, ...]
    down: Tensor | tuple[Tensor, ...]

    @classmethod
    def of(cls, factors: Sequence[tuple[Tensor, Tensor]]) -> Factored:
        """From up and down of each."""
        ups, downs = zip(*factors)
        return cls(torch.stack(ups), torch.stack(downs)) if len({len(down) for down in downs}) == 1 else cls(ups, downs)

    @property
    def nbytes(self) -> int:
        return sum(factor.nbytes for factor in (*self.up, *self.down))

    def chosen(self, numbers: Sequence[int]) -> Factored:
        """Of these LoRAs."""
        if isinstance(self.up, Tensor):
            return Factored(chosen(self.up, numbers), chosen(self.down, numbers))
        return Factored(tuple(self.up[number] for number in numbers), tuple(self.down[number] for number in numbers))

    def write(self, rows: slice, into: Tensor) -> None:
        """ΔW's rows of each LoRA."""
        if isinstance(self.up, Tensor):
            torch.bmm(self.up[:, rows], self.down, out=into)
        else:
            for up, down, one in zip(self.up, self.down, into):
                torch.mm(up[rows], down, out=one)


class Deltas(NamedTuple):
    """Products, and after them dense matrices (out, in); on one device. dtype: in which they are combined, that of the
    products."""

    thin: Factored | None
    dense: Sequence[Tensor]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        return (0 if self.thin is None else len(self.thin.up)) + len(self.dense)

    @property
    def shape(self) -> tuple[int, int]:
        if self.thin is None:
            return tuple(self.dense[0].shape)
        return len(self.thin.up[0]), self.thin.down[0].shape[1]

    @property
    def device(self) -> torch.device:
        return (self.dense or self.thin.up)[0].device

    def write(self, rows: slice, into: Tensor) -> None:
        """Their rows, (LoRAs, rows, in)."""
        first = self.count - len(self.dense)
        if self.thin is not None:
            self.thin.write(rows, into[:first])
        for matrix, one in zip(self.dense, into[first:]):
            one.copy_(matrix[rows])
