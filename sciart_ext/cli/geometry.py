"""The command `geometry`: what LoRA files have in common, and where they conflict."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from ..errors import SciArtError
from ..recipe.schedule import MAX_WEIGHT, check_number
from ..recipe.schedule_text import numbers_in
from ..whole_file import write_text
from ..world import MODEL as TINY
from .command import FILES, RESULT, Command
from .lora_arguments import files_of
from .mixture import LoraName, lora_dir_option
from .outputs import check_file, keep
from .progress import progress, working


@click.command(cls=Command, panel=FILES, examples=("child watercolor --out geometry.html",))
@click.argument("loras", nargs=-1, required=True, type=LoraName("LORA"), metavar="LORA...",
                help="Names in the LoRA folder, files, folders; two LoRAs or more.")
@lora_dir_option()
@click.option("--weights", metavar="NUMBERS", help="Of each in the mixture: 0.65,0.55,0.5; default: 1.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", panel=RESULT,
              help="Also as a page with pictures: geometry.html.")
@click.option("--json", "as_json", is_flag=True, panel=RESULT, help="Every layer's numbers instead of sentences.")
@click.option("--quiet", is_flag=True, panel=RESULT, help="No progress bar.")
def geometry(**options: Any) -> None:
    """Tell what LoRA files have in common, and where they conflict."""
    given = SimpleNamespace(**options)
    folder = given.lora_dir or TINY / "loras"
    if given.lora_dir is not None and not folder.is_dir():
        raise SciArtError("lora-dir", f"{folder}: no such folder")
    found = files_of(given.loras, folder)
    weights = _weights(given.weights, len(found)) if given.weights else [1.0] * len(found)
    if given.out:
        check_file(given.out, (".html", ".htm"))
    missing = [path for _, path in found if isinstance(path, SciArtError)]
    if len(found) < 2 or len(found) - len(missing) < 2:
        raise missing[0] if missing else SciArtError("loras", "geometry compares LoRAs: give two or more")
    with working("Reading", given.quiet):
        from ..geometry.comparison import compare
        from ..geometry.page import geometry_page
        from ..geometry.report import as_data, in_words
        from ..lora.file import load_lora

        files, wrong = [], []
        for word, path in found:
            try:
                if isinstance(path, SciArtError):
                    raise path
                files.append(load_lora(path))
            except SciArtError as error:
                wrong.append((word, error))
                files.append(None)
    good = [(lora, weight) for lora, weight in zip(files, weights) if lora is not None]
    if len(good) < 2:
        raise wrong[0][1]
    for word, error in wrong:
        click.echo(f"{word}: {error.message}", err=True)
    with progress("Layers", given.quiet) as on_layer:
        comparison = compare([lora for lora, _ in good], [weight for _, weight in good], on_layer)
    if given.out:
        page = geometry_page(comparison)
        keep(given.out, lambda path: write_text(path, page))
    if given.as_json:
        click.echo(json.dumps(as_data(comparison), ensure_ascii=False))
    else:
        click.echo("\n".join(in_words(comparison)))
    if wrong:
        raise SciArtError("loras", f"{len(wrong)} of {len(found)} cannot be used; the others are compared")


def _weights(text: str, count: int) -> list[float]:
    try:
        numbers = numbers_in(text)
    except SciArtError as error:
        raise SciArtError("weights", f"{error.message}; such as 0.65,0.55 or 0,65;0,55") from None
    if len(numbers) != count:
        raise SciArtError("weights", f"{len(numbers)} weights for {count} LoRAs; give one for each")
    return [check_number(number, "weights", -MAX_WEIGHT, MAX_WEIGHT) for number in numbers]
