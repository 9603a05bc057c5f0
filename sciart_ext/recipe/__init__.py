"""The recipe: what it can say, read and checked, and compiled for a number of steps. Data in, data out, no torch.

Its names are looked up when they are asked for: who needs only the pure parts, as the mixer does, needs no pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import Pair, PassPlan, Plan, Row, compile_plan
    from .recipe import (
        COMPOSES,
        INFOTEXT_KEY,
        NOISE_KEY,
        NOTES_KEY,
        VERSION_KEY,
        LoraEntry,
        Recipe,
        dump_recipe,
        is_off,
        parse_recipe,
        recipe_to_text,
    )

_OF_PLAN = ("Pair", "PassPlan", "Plan", "Row", "compile_plan")
__all__ = ["COMPOSES", "INFOTEXT_KEY", "NOISE_KEY", "NOTES_KEY", "VERSION_KEY", "LoraEntry", "Pair", "PassPlan", "Plan",
           "Recipe", "Row", "compile_plan", "dump_recipe", "is_off", "parse_recipe", "recipe_to_text"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".plan" if name in _OF_PLAN else ".recipe", __name__), name)
