"""Which way a preset should take, by the table: the cheapest of those that do best and keep every style."""

from __future__ import annotations

from collections.abc import Sequence

KEPT = 0.5
"""of the strongest weakest style in the scene: with less, one style has swallowed another"""


def default(table: Sequence[dict], scene: str) -> dict:
    """Of the rows of a scene in which no style is swallowed, those whose interval of what is there reaches the highest
    share; of these the one that takes the least time."""
    rows = [row for row in table if row["scene"] == scene]
    if scene != "two subjects":
        strongest = max(row["weakest_style"] for row in rows)
        rows = [row for row in rows if row["weakest_style"] >= KEPT * strongest]
    best = max(row["there"]["share"] for row in rows)
    return min((row for row in rows if row["there"]["high"] >= best), key=lambda row: row["cpu_seconds"])


def defaults(table: Sequence[dict]) -> dict[str, str]:
    """scene: compose and combine."""
    best = {scene: default(table, scene) for scene in dict.fromkeys(row["scene"] for row in table)}
    return {scene: f"{row['compose']}, {row['combine']}" for scene, row in best.items()}
