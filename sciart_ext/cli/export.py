"""The command `export-webui`: the tiny model and its LoRAs for a WebUI."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .. import standalone
from ..errors import SciArtError, shown
from ..standalone.model_facts import model_facts
from ..whole_file import check_folder_place, check_name
from ..world import MODEL as TINY
from .command import FILES, Command
from .progress import working


@click.command("export-webui", cls=Command, panel=FILES, examples=("stable-diffusion-webui/models",))
@click.argument("models_dir", type=click.Path(path_type=Path), metavar="FOLDER", help="The WebUI's folder `models`.")
@click.option("--model", type=click.Path(path_type=Path), default=TINY, metavar="FOLDER",
              help="Another diffusers folder of SD 1's kind, its LoRAs in `loras`; default: the tiny model.")
@click.option("--name", default="sciart-tiny",
              help="Of the checkpoint, and before the LoRAs' names; default: sciart-tiny.")
def export_webui(models_dir: Path, model: Path, name: str) -> None:
    """Put the tiny model and its LoRAs into a WebUI."""
    if not name.strip() or any(mark in name for mark in '<>:"/\\|?*'):
        raise SciArtError("name", f"{shown(name)}; accepted: a file's name without its ending")
    check_name(name, "name")
    if not model.is_dir() or model_facts(model).family != "SD1":
        raise SciArtError("model", f"{model}; accepted: a diffusers folder of SD 1's kind")
    check_folder_place(models_dir, sum(path.stat().st_size for path in model.rglob("*") if path.is_file()))
    standalone.prepare()
    with working("Writing"):
        from ..standalone.export import export_webui as exported

        written = exported(model, models_dir, name)
    for path in written:
        click.echo(path)
