"""The command `loras`: what LoRA files contain, and whether they fit a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
    if len(found) == 1 and isinstance(found[0][1], SciArtError):
        raise found[0][1]
    with working("Reading"):
        reports = [_report(word, path) for word, path in found]
    if given.model is not None:
        _add_fit(reports, given)
    shown = [{key: value for key, value in report.items() if key != "lora"} for report in reports]
    if given.as_json:
        click.echo(json.dumps(shown, ensure_ascii=False, indent=2))
    elif len(reports) > 1 or "error" not in reports[0]:
        _print(shown)
    wrong = [report for report in reports if "error" in report]
    if wrong and len(reports) == 1 and not given.as_json:
        raise SciArtError(wrong[0]["file"], wrong[0]["error"])
    if wrong:
        raise SciArtError("loras", f"{len(wrong)} of {len(reports)} cannot be used")


def _report(word: str, path: Path | SciArtError) -> dict:
    from ..lora.file import load_lora

    if isinstance(path, SciArtError):
        return {"file": word, "error": path.message}
    try:
        lora = load_lora(path)
    except SciArtError as error:
        return {"file": path.name, "error": error.message}
    return {**lora.report(), "lora": lora}


def _add_fit(reports: Sequence[dict], given: Any) -> None:
    from ..mixer.fit import check_fit
    from ..standalone.generate import model_layers
    from ..standalone.models import load_pipeline

    with working(f"Loading {given.model.name}"):
        layers = model_layers(load_pipeline(given.model, given.config, "cpu"))
    for report in reports:
        if "lora" in report:
            try:
                report["fit"] = check_fit([report["lora"]], layers, given.model.stem) or ["fits"]
            except SciArtError as error:
                report["fit"] = [str(error)]


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
