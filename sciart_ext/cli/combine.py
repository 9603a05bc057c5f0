"""The command `combine`: several LoRA files as one, for this and other programs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from ..combine.choices import PRECISIONS, SVD
from ..errors import SciArtError
from ..lora.limits import MAX_RANK
from .command import FILES, RESULT, Command
from .joining import JOINING, JOINING_OPTIONS, recipe_of
from .mixture import check_loras, lora_folder
from .outputs import check_file, free, keep
from .progress import progress, working
from .values import Number, OneOf


def _bases() -> tuple[str, ...]:
    from ..lora.families import STABLE_DIFFUSION

    return STABLE_DIFFUSION


@click.command(cls=Command, panel=FILES, examples=("child=0.65 watercolor=0.55 --method ties",))
@JOINING_OPTIONS
@click.option("--rank", type=Number(1, MAX_RANK), panel=JOINING,
              help="Of the result; default: the sum of the LoRAs' ranks, which loses nothing of linear and orthogonal.")
@click.option("--svd", type=OneOf("SVD", lambda: SVD, listed=True), default="auto",
              panel=JOINING, help="Of dense results; default: auto, by the rank.")
@click.option("--base", type=OneOf("BASE", _bases, listed=True), panel=RESULT,
              help="Which base model it is for, where the files do not tell.")
@click.option("--precision", type=OneOf("PRECISION", lambda: PRECISIONS, listed=True), default="fp16",
              panel=RESULT, help="Default: fp16.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", panel=RESULT,
              help="Default: combined.safetensors, or the next name that is free.")
@click.option("--quiet", is_flag=True, panel=RESULT, help="No progress bar.")
def combine(**options: Any) -> None:
    """Join several LoRA files into one."""
    given = SimpleNamespace(**options)
    given.out = given.out or free(Path("combined.safetensors"))
    recipe = recipe_of(given)
    paths = check_loras(recipe, lora_folder(given))
    if not paths:
        raise SciArtError("loras", "missing; give NAME=WEIGHT, --recipe or --preset")
    check_file(given.out, (".safetensors",), size=sum(path.stat().st_size for path in paths))
    with working("Reading", given.quiet):
        from ..combine.files import combine_files
        from ..combine.writing import check_target, write_combined
        from ..lora.file import load_lora

        check_target(given.out, paths)
        loras = [load_lora(path, path.stem) for path in paths]
    with progress("Layers", given.quiet) as on_layer:
        combined = combine_files(loras, recipe, given.rank, given.svd, on_layer, given.base)
    keep(given.out, lambda path: write_combined(combined, path, given.precision))
    click.echo("\n".join(combined.sentences()))
    click.echo(f"{given.out} ({given.out.stat().st_size / 2**20:.1f} MB)")
