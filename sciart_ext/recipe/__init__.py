"""The recipe: what it can say, read and checked, and compiled for a number of steps. Data in, data out, no torch."""

from .plan import Pair, PassPlan, Plan, Row, compile_plan
from .recipe import (
    COMPOSES,
    INFOTEXT_KEY,
    NOTES_KEY,
    VERSION_KEY,
    LoraEntry,
    Recipe,
    dump_recipe,
    is_off,
    parse_recipe,
    recipe_to_text,
)

__all__ = ["Recipe", "LoraEntry", "parse_recipe", "dump_recipe", "recipe_to_text", "is_off", "COMPOSES", "INFOTEXT_KEY",
           "NOTES_KEY", "VERSION_KEY", "Plan", "PassPlan", "Row", "Pair", "compile_plan"]
