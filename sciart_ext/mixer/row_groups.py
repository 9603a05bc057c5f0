"""Rows of a call that have something in common: taken out of a tensor, and put together again in their order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from .gates import sent


class RowGroups:
    """Rows by equal keys. keys: of each row, for which a call has `repeats` rows that follow each other.

    Neighbours are taken as a view; the indices of others are sent to the device once.
    """

    def __init__(self, keys: Sequence[Hashable], repeats: int, device: torch.device):
        grouped: dict[Hashable, list[int]] = {}
        for row, key in enumerate(keys):
            grouped.setdefault(key, []).append(row)
        self.keys = list(grouped)
        self.rows = [tuple(rows) for rows in grouped.values()]
        """the numbers of each key's rows"""
        taken = [[row * repeats + i for row in rows for i in range(repeats)] for rows in self.rows]
        self._taken = [_slice_or_index(rows, device) for rows in taken]
        order = [row for rows in taken for row in rows]
        self._back = None if order == sorted(order) else sent(torch.tensor(order).argsort(), device)

    def of(self, x: Tensor) -> list[Tensor]:
        """The rows of each key; views where they are neighbours."""
        return [x[rows] if isinstance(rows, slice) else x.index_select(0, rows) for rows in self._taken]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `of`."""
        if len(parts) == 1:
            return parts[0]
        whole = torch.cat(list(parts))
        return whole if self._back is None else whole.index_select(0, self._back)


def _slice_or_index(rows: list[int], device: torch.device) -> slice | Tensor:
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return sent(torch.tensor(rows), device)
