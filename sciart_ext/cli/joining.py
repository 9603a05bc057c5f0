"""How commands that write a mixture into a file are told which: LoRAs, recipes, and how they are joined."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ..errors import SciArtError
from ..presets import PresetStore
from ..recipe import Recipe
from ..recipe.combining import METHODS
from .command import options
from .mixture import RECIPE_OPTIONS, LoraName, lora_dir_option, lora_folder, recipe_data, resolved_recipe
from .values import Number, OneOf

JOINING = "How they are joined"
_SETTINGS = ("density", "majority", "seed", "directions", "strength")

JOINING_OPTIONS = options(
    click.argument("loras", nargs=-1, type=LoraName("NAME=WEIGHT", "="), metavar="[NAME=WEIGHT]...",
                   help="LoRAs: child=0.65, a name in the LoRA folder or a file."),
    RECIPE_OPTIONS, lora_dir_option(),
    click.option("--method", type=OneOf("METHOD", lambda: METHODS, listed=True), panel=JOINING,
                 help="Default: the recipe's, or linear."),
    click.option("--density", type=Number(0.01, 1, whole=False), panel=JOINING,
                 help="Share of each LoRA's entries that is kept (ties, magnitude-prune: the largest; dare-…: random "
                      "ones); default: 0.5."),
    click.option("--majority", type=OneOf("SIGN", lambda: ("total", "frequency"), listed=True), panel=JOINING,
                 help="Whose sign wins (ties, dare-ties); default: total."),
    click.option("--seed", type=Number(0, 2**32 - 1), panel=JOINING,
                 help="Of the random entries; default: 0."),
    click.option("--directions", type=Number(1, 4096), panel=JOINING,
                 help="Strongest directions of a LoRA that the others leave to it (orthogonal); default: 16."),
    click.option("--strength", type=Number(0, 1, whole=False), panel=JOINING,
                 help="How much of what lies in them they leave (orthogonal); 1: all of it; default: 0.25."))


def recipe_of(given: Any) -> Recipe:
    """The resolved recipe of `NAME=WEIGHT` arguments, of the options for recipes and of those of the methods."""
    store = PresetStore()
    given.lora = [*given.loras, *given.lora]
    data = recipe_data(given, store)
    if not data:
        raise SciArtError("loras", "missing; give NAME=WEIGHT, --recipe or --preset")
    settings = {name: getattr(given, name) for name in _SETTINGS if getattr(given, name) is not None}
    if given.method is not None:
        data["combine"] = given.method
    if settings:
        data["combining"] = {**data.get("combining", {}), **settings}
    try:
        return resolved_recipe(data, store, lora_folder(given))
    except SciArtError as error:  # in the options' own names
        field = {"combine": "method"}.get(error.field, error.field.removeprefix("combining."))
        raise SciArtError(field, error.message) from None
