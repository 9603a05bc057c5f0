"""The command `bake`: a mixture written into a copy of a checkpoint, for this and other programs."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ..whole_file import written_whole
from ..world import MODEL
from .command import add_command
from .mixture import add_mixture_options, recipe_of
from .progress import show_progress


def add_bake_command(commands) -> None:
    """Adds it to the parser's commands."""
    command = add_command(commands, "bake", "write a mixture into a copy of a checkpoint",
                          "child=0.65 watercolor=0.55 --model sd15.safetensors --out storybook.safetensors")
    add_mixture_options(command)
    command.add_argument("--model", type=Path, default=MODEL,
                         help="the original, which stays as it is: .safetensors or a diffusers folder; default: the "
                              "tiny model")
    command.add_argument("--out", type=Path, required=True,
                         help="the copy: .safetensors, or of a diffusers folder a new folder")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=_bake)


def _bake(args: argparse.Namespace) -> None:
    from ..bake.baking import bake, check_out
    from ..lora.file import load_lora
    from ..lora.folder import find_lora

    recipe = recipe_of(args)
    check_out(args.model, args.out)
    loras = [load_lora(find_lora(lora.name, args.lora_dir), lora.name) for lora in recipe.loras]
    baked = bake(args.model, args.out, recipe, loras, None if args.quiet else show_progress)
    for note in baked.notes:
        print(note)
    print(f"{baked.changed} of {baked.tensors} tensors are changed")
    for path in (baked.path, *_copied_beside(args.model, args.out)):
        print(path)


def _copied_beside(model: Path, out: Path) -> list[Path]:
    """The configuration that WebUIs read beside a checkpoint, where it has one."""
    source, copy = model.with_suffix(".yaml"), out.with_suffix(".yaml")
    if model.is_dir() or not source.is_file() or copy.exists():
        return []
    with written_whole(copy) as temporary:
        shutil.copyfile(source, temporary)
    return [copy]
