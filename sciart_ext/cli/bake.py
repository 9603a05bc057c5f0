"""The command `bake`: a mixture written into a copy of a checkpoint, for this and other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from ..standalone.model_facts import model_facts
from ..whole_file import check_file_place, check_folder_place, written_whole
from .command import FILES, RESULT, Command
from .joining import JOINING_OPTIONS, recipe_of
from .mixture import check_loras, lora_folder
from .model import model_option
from .progress import progress, working


@click.command(cls=Command, panel=FILES, examples=("child=0.65 watercolor=0.55 --out storybook",))
@JOINING_OPTIONS
@model_option("The original, which stays as it is: .safetensors or a diffusers folder; default: the tiny model.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE|FOLDER", panel=RESULT,
              help="The copy: .safetensors, or of a diffusers folder a new folder.")
@click.option("--quiet", is_flag=True, panel=RESULT, help="No progress bar.")
def bake(**options: Any) -> None:
    """Write a mixture into a copy of a checkpoint."""
    given = SimpleNamespace(**options)
    recipe = recipe_of(given)
    model_facts(given.model)
    paths = check_loras(recipe, lora_folder(given))
    if given.model.is_dir():
        check_folder_place(given.out, sum(path.stat().st_size for path in given.model.rglob("*") if path.is_file()))
    elif given.out.suffix.lower() == ".safetensors":
        check_file_place(given.out, given.model.stat().st_size)
    with working("Reading", given.quiet):
        from ..bake.baking import bake as baked_into
        from ..bake.baking import check_out
        from ..lora.file import load_lora

        check_out(given.model, given.out)
        loras = [load_lora(path, lora.name) for path, lora in zip(paths, recipe.loras)]
    with progress("Tensors", given.quiet) as on_tensor:
        baked = baked_into(given.model, given.out, recipe, loras, on_tensor)
    for note in baked.notes:
        click.echo(note)
    click.echo(f"{baked.changed} of {baked.tensors} tensors are changed")
    for path in (baked.path, *_copied_beside(given.model, given.out)):
        click.echo(path)


def _copied_beside(model: Path, out: Path) -> list[Path]:
    """The configuration that WebUIs read beside a checkpoint, where it has one."""
    source, copy = model.with_suffix(".yaml"), out.with_suffix(".yaml")
    if model.is_dir() or not source.is_file() or copy.exists():
        return []
    with written_whole(copy) as temporary:
        shutil.copyfile(source, temporary)
    return [copy]
