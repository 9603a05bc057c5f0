"""The command `loras`: what LoRA files contain, and whether they fit a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import rich_click as click

from .. import standalone
from ..errors import SciArtError
from ..standalone.model_facts import model_facts
from ..world import MODEL as TINY
from .command import FILES, RESULT, Command
from .lora_arguments import files_of
from .mixture import LoraName, lora_dir_option
from .model import CONFIG_OPTION, model_option
from .progress import working

if TYPE_CHECKING:
    from ..lora.file import LoraFile
    from ..mixer.targets import Target


@click.command(cls=Command, panel=FILES, examples=("child watercolor", "--lora-dir models/Lora"))
@click.argument("loras", nargs=-1, type=LoraName("LORA"), metavar="[LORA]...",
                help="Names in the LoRA folder, files, folders; default: all of the LoRA folder.")
@lora_dir_option()
@model_option("Tell whether they fit this one: a diffusers folder, .safetensors or .ckpt.", None)
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, panel=RESULT, help="As JSON instead of a line for each.")
def loras(**options: Any) -> None:
    """Tell what LoRA files contain, and whether they fit a model."""
    given = SimpleNamespace(**options)
    folder = given.lora_dir or TINY / "loras"
    if given.lora_dir is not None and not folder.is_dir():
        raise SciArtError("lora-dir", f"{folder}: no such folder")
    found = files_of(given.loras or [str(folder)], folder)
    if given.model is not None:
        model_facts(given.model, given.config)
        standalone.prepare()
    with working("Reading"):
        loaded = [_loaded(word, path) for word, path in found]
    wrong = [lora for _, lora in loaded if isinstance(lora, SciArtError)]
    if len(wrong) == len(loaded) == 1:
        raise wrong[0]
    layers = _layers(given) if given.model is not None and len(wrong) < len(loaded) else None
    reports = [_report(name, lora, layers, given) for name, lora in loaded]
    if given.as_json:
        click.echo(json.dumps(reports, ensure_ascii=False, indent=2))
    else:
        _print(reports)
    if wrong:
        raise SciArtError("loras", f"{len(wrong)} of {len(loaded)} cannot be used")


def _loaded(word: str, path: Path | SciArtError) -> tuple[str, LoraFile | SciArtError]:
    """What it is called, and the LoRA or why there is none."""
    if isinstance(path, SciArtError):
        return word, path
    from ..lora.file import load_lora

    try:
        return path.name, load_lora(path)
    except SciArtError as error:
        return path.name, error


def _layers(given: Any) -> dict[str, Target]:
    from ..standalone.generate import model_layers
    from ..standalone.models import load_pipeline

    with working(f"Loading {given.model.name}"):
        return model_layers(load_pipeline(given.model, given.config, "cpu"))


def _report(name: str, lora: LoraFile | SciArtError, layers: dict[str, Target] | None, given: Any) -> dict:
    if isinstance(lora, SciArtError):
        return {"file": name, "error": lora.message}
    if layers is None:
        return lora.report()
    from ..mixer.fit import check_fit

    try:
        return {**lora.report(), "fit": check_fit([lora], layers, given.model.stem) or ["fits"]}
    except SciArtError as error:
        return {**lora.report(), "fit": [str(error)]}


def _print(reports: Sequence[dict]) -> None:
    for report in reports:
        if "error" in report:
            click.echo(f"{report['file']}: {report['error']}")
            continue
        ranks = f"rank {', '.join(report['ranks'])}, " if report["ranks"] else ""
        words = "".join(f", embedding {word!r}" for word in report.get("embeddings", []))
        click.echo(f"{report['file']}: {report['kind']} for {report['base']}, {ranks}{report['unet_layers']} UNet "
                   f"and {report['text_encoder_layers']} text encoder layers, {report['megabytes']} MB{words}")
        for line in report.get("fit", report.get("notes", [])):
            click.echo(f"  {line}")
