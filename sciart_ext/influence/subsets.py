"""Which sets of LoRAs a question about their influence needs pictures of. A set is a number: bit k, LoRA k is in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SciArtError, shown
from .shapley import EXACT_UP_TO, sets_of, spread_orders

SUBSETS = ("solo", "left-out", "all")
"""each alone against none; all against all but one; both of them, and what it takes for Shapley shares"""
ORDERS = 12
MAX_ORDERS = 1000
MAX_LORAS = 16


@dataclass(frozen=True)
class Question:
    """subsets: one of `SUBSETS`; orders: of the LoRAs, from which shares are estimated; None where they are exact, or
    not asked for."""

    count: int
    subsets: str
    orders: tuple[tuple[int, ...], ...] | None = None

    @property
    def sets(self) -> list[int]:
        """Small ones first; those of one size by the first LoRA they have, the larger half by the first they lack."""
        every = (1 << self.count) - 1
        wanted: set[int] = set()
        if self.subsets == "solo":
            wanted = {0, *(1 << k for k in range(self.count))}
        elif self.subsets == "left-out":
            wanted = {every, *(every ^ 1 << k for k in range(self.count))}
        elif self.orders is None:
            wanted = set(range(every + 1))
        else:
            wanted = {*sets_of(self.orders), *(1 << k for k in range(self.count)),
                      *(every ^ 1 << k for k in range(self.count))}

        def order(one: int) -> tuple[int, int]:
            size = bin(one).count("1")
            return size, one if 2 * size <= self.count else -one

        return sorted(wanted, key=order)


@dataclass(frozen=True)
class Unfinished:
    """The answer to a question whose pictures were cancelled: how many are made, of how many."""

    made: int
    of: int


def ask(count: int, subsets: str = "all", orders: int | None = None, seed: int = 0) -> Question:
    """The question about so many LoRAs. Up to four are answered exactly; more from so many orders of them
    (`ORDERS` by default), unless all sets are no more pictures.

    Raises `SciArtError` for what cannot be asked.
    """
    if subsets not in SUBSETS:
        raise SciArtError("subsets", f"{shown(subsets)} is not known; accepted: {', '.join(SUBSETS)}")
    if not 1 <= count <= MAX_LORAS:
        raise SciArtError("loras", f"{count} LoRAs; influence can be told of 1 to {MAX_LORAS}")
    if orders is not None and not 2 <= orders <= MAX_ORDERS:
        raise SciArtError("orders", f"{shown(orders)} is out of range; accepted: 2 to {MAX_ORDERS}")
    if subsets != "all" or (count <= EXACT_UP_TO and orders is None):
        return Question(count, subsets)
    sampled = Question(count, subsets, tuple(spread_orders(count, orders or ORDERS, seed)))
    return Question(count, subsets) if len(sampled.sets) >= 1 << count else sampled
