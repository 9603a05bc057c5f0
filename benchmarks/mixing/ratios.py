"""What follows from raw timings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def ratios(rounds: Sequence[dict[str, dict]], of: str) -> dict[str, float]:
    """Each variant's median over rounds of its time over that of none in the same round."""
    names = dict.fromkeys(name for measured in rounds for name in measured if name != "none")
    return {
        name: round(
            statistics.median(
                measured[name][of] / measured["none"][of] for measured in rounds if name in measured
            ),
            4,
        )
        for name in names
    }


def fastest(rounds: Sequence[dict[str, dict]], of: str) -> dict[str, float]:
    """Each variant's shortest time over that of none: less true to life, less troubled by a busy machine."""
    best: dict[str, float] = {}
    for measured in rounds:
        for name, taken in measured.items():
            best[name] = min(taken[of], best.get(name, taken[of]))
    return {name: round(time / best["none"], 4) for name, time in best.items() if name != "none"}
