"""The rows of a step, which the calls of a model take in order: their gates, and where LoRAs with masks act in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from ..errors import UnknownRowsError
from .gates import Gates
from .token_gates import RowGates, TokenGates


class StepRows:
    """count: gates of each row."""

    def __init__(self, count: int):
        self.count = count
        self.token_gates: TokenGates | None = None
        """of the LoRAs with masks, in the views that `set` is told of"""
        self.gates: Gates | None = None
        """of the call that runs"""
        self.places: RowGates | None = None
        """where LoRAs with masks act in the rows of the call that runs"""
        self.called = 0
        """rows of the last call"""
        self._rows: list[tuple[float, ...]] = []
        self._views: tuple[int, ...] = ()
        self._cursor = 0

    def set(self, rows: Sequence[Sequence[float]], views: Sequence[int] = ()) -> None:
        """For the coming calls: their rows in order, or one row for all rows of all calls; arguments as of
        `Mixer.set_gates`."""
        rows = [tuple(float(gate) for gate in row) for row in rows]
        if not rows or any(len(row) != self.count for row in rows):
            raise ValueError(f"expected rows of {self.count} gates, got {rows!r}")
        if any(not math.isfinite(gate) for row in rows for gate in row):
            raise ValueError(f"gates must be finite, got {rows!r}")
        if len(set(rows)) == 1:
            rows = rows[:1]
        self._cursor, self._views = 0, tuple(views)
        if rows != self._rows:
            self._rows = rows
            self._use(rows[:1] if len(rows) == 1 else [])

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Calls in this context have gates of 0; afterwards the rows go on where they were."""
        before, cursor, views = self._rows, self._cursor, self._views
        self.set([[0.0] * self.count])
        try:
            yield
        finally:
            self.set(before)
            self._cursor, self._views = cursor, views

    def begin(self, latents: Tensor, may_differ: bool) -> None:
        """A call of the model takes its rows; latents (rows, channels, h, w). may_differ: whether the pass is prepared
        for rows of a call with other gates than others."""
        if not self._rows:
            raise RuntimeError("SciArt: the model was called before its gates were set")
        self.called, self.places = len(latents), None
        if len(self._rows) == 1 and not self._views:
            return
        known, begin = len(self._views or self._rows), self._cursor
        self._cursor += self.called
        if self._cursor > known:
            raise UnknownRowsError(f"SciArt: the UNet was called with {self._cursor} rows in a step of {known}; "
                                   "another extension evaluates it, and whose prompt its rows belong to is not known")
        if self._views:
            self.places = self.token_gates.of_rows(self._views[begin:self._cursor], tuple(latents.shape[-2:]))
        if len(self._rows) == 1:
            return
        rows = self._rows[begin:self._cursor]
        if not may_differ and len(set(rows)) > 1:
            raise RuntimeError("SciArt: gates differ between rows, which this pass was not prepared for")
        self._use(rows[:1] if len(set(rows)) == 1 else rows)

    def clear(self) -> None:
        """No gates are set any more, and no masks."""
        self._rows, self._views, self.gates = [], (), None
        self.places = self.token_gates = None

    def _use(self, rows: list[tuple[float, ...]]) -> None:
        if self.gates is None or rows != list(self.gates.rows):
            self.gates = Gates(rows) if rows else None
