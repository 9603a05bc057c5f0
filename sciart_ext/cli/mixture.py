"""How commands that write a mixture into a file are told which: LoRAs, recipes, and how they are joined."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import SciArtError
from ..presets import PresetStore
from ..recipe import Recipe
from ..recipe.combining import METHODS
from ..world import MODEL
from .recipe import add_recipe_options, recipe_data, resolved_recipe

_SETTINGS = ("density", "majority", "seed", "directions")


def add_mixture_options(command: argparse.ArgumentParser) -> None:
    """Adds what `recipe_of` reads, and `--lora-dir`."""
    command.add_argument("loras", nargs="*", metavar="NAME=WEIGHT",
                         help="child=0.65: a name in the LoRA folder, or a file")
    add_recipe_options(command)
    command.add_argument("--lora-dir", type=Path, default=MODEL / "loras",
                         help="where LoRA names are looked up; default: the tiny model's own")
    command.add_argument("--method", help=f"how they are joined: {', '.join(METHODS)}; default: the recipe's, or "
                                          "linear")
    command.add_argument("--density", type=float, help="share of each LoRA's entries that is kept (ties, magnitude-"
                                                       "prune: the largest; dare-…: random ones); default: 0.5")
    command.add_argument("--majority", help="whose sign wins (ties, dare-ties): total, frequency; default: total")
    command.add_argument("--seed", type=int, help="of the random entries; default: 0")
    command.add_argument("--directions", type=int, help="strongest directions of a LoRA that the others leave to it "
                                                        "(orthogonal); default: 16")


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The resolved recipe of `NAME=WEIGHT` arguments, of the options for recipes and of those of the methods."""
    args.lora = [*args.loras, *args.lora]
    data = recipe_data(args)
    if not data:
        raise SciArtError("loras", "missing; give NAME=WEIGHT, --recipe or --preset")
    given = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    if args.method is not None:
        data["combine"] = args.method
    if given:
        data["combining"] = {**data.get("combining", {}), **given}
    try:
        return resolved_recipe(data, PresetStore())
    except SciArtError as error:  # in the options' own names
        field = {"combine": "method"}.get(error.field, error.field.removeprefix("combining."))
        raise SciArtError(field, error.message) from None
