"""The command `combine`: several LoRA files as one, for this and other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..combine.base import BASES
from ..errors import SciArtError, shown
from ..presets import PresetStore
from ..recipe import Recipe
from ..recipe.combining import METHODS
from ..world import MODEL
from .command import add_command
from .progress import show_progress
from .recipe import add_recipe_options, recipe_data, resolved_recipe

_SETTINGS = ("density", "majority", "seed", "directions")


def add_combine_command(commands) -> None:
    """Adds it to the parser's commands."""
    command = add_command(commands, "combine", "join several LoRA files into one",
                          "child=0.65 watercolor=0.55 --method ties --out combined.safetensors")
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
    command.add_argument("--rank", type=int, help="of the result; default: the sum of the LoRAs' ranks, which loses "
                                                  "nothing of linear and orthogonal")
    command.add_argument("--svd", default="auto", help="of dense results: exact, randomised or auto, by the rank; "
                                                       "default: auto")
    command.add_argument("--base", help=f"which base model it is for, where the files do not tell: {', '.join(BASES)}")
    command.add_argument("--precision", default="fp16", help="fp16 or fp32; default: fp16")
    command.add_argument("--out", type=Path, default=Path("combined.safetensors"),
                         help="the file; default: combined.safetensors")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=_combine)


def _combine(args: argparse.Namespace) -> None:
    from ..combine.files import combine_files
    from ..combine.writing import PRECISIONS, check_target, write_combined
    from ..lora.file import load_lora
    from ..lora.folder import find_lora

    recipe = recipe_of(args)
    if args.precision not in PRECISIONS:
        raise SciArtError("precision", f"{shown(args.precision)} is not known; accepted: {', '.join(PRECISIONS)}")
    paths = [find_lora(lora.name, args.lora_dir) for lora in recipe.loras]
    check_target(args.out, paths)
    loras = [load_lora(path, path.stem) for path in paths]
    combined = combine_files(loras, recipe, args.rank, args.svd, None if args.quiet else show_progress, args.base)
    write_combined(combined, args.out, args.precision)
    print("\n".join(combined.sentences()))
    print(f"{args.out} ({args.out.stat().st_size / 2**20:.1f} MB)")


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
