"""The part of `benchmarks.hostile` about recipes."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st
from promises import check_recipe
from strange_recipes import RECIPES, recipe_texts, strange_recipes

from .hostile_fuzzing import drive, keep

STEPS = st.one_of(st.integers(1, 40), st.integers(1, 10_000))
VALUES = st.one_of(strange_recipes(), strange_recipes(), recipe_texts(), RECIPES)


def recipes(minutes: float, kept: Path) -> dict:
    """{"recipes": how many, "recipes_wrong": how many were not as promised}, after so many minutes."""
    def failed(values: tuple[object, int], error: BaseException) -> None:
        value, steps = values
        print("WRONG:", type(error).__name__, str(error)[:300], f"({steps} steps)", _kept(kept, value), flush=True)

    tried, wrong = drive(st.tuples(VALUES, STEPS), lambda values: _attempt(*values), 60 * minutes, failed)
    return {"recipes": tried, "recipes_wrong": wrong}


def _attempt(value: object, steps: int) -> None:
    check_recipe(value, steps, png=steps == 7)


def _kept(folder: Path, value: object) -> Path | str:
    if isinstance(value, (str, bytes)):
        return keep(folder, value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"), ".txt")
    try:
        return keep(folder, json.dumps(value).encode(), ".json")
    except (RecursionError, ValueError):
        return f"{value!r:.300}" if not isinstance(value, (list, dict)) else "(no JSON says it)"
