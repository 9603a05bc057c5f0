"""How the command line is told which model draws, and where; both are checked before anything is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import rich_click as click

from ..errors import SciArtError, did_you_mean, shown
from ..world import MODEL as TINY
from .command import MODEL, Decorator, options
from .progress import working
from .values import Word

DEVICES = ("cpu", "cuda", "mps")
SMALL = 30_000_000
"""weights of a UNet; SD 1's has 860 million"""
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(?::(\d{1,3}))?")


def model_option(help: str = "A diffusers folder, .safetensors or .ckpt; default: the tiny model.",
                 default: Path | None = TINY) -> Decorator:
    return click.option("--model", type=click.Path(path_type=Path), default=default, metavar="FILE|FOLDER", panel=MODEL,
                        help=help)


CONFIG_OPTION = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FOLDER", panel=MODEL,
    help="For a single file: a diffusers folder of the same architecture, so that nothing is looked up online.")
MODEL_OPTIONS = options(
    model_option(), CONFIG_OPTION,
    click.option("--device", type=Word("cpu|cuda|mps", lambda: DEVICES), panel=MODEL,
                 help="Default: cuda where there is one, else cpu."))


def check_device(name: str | None) -> None:
    """Refuses a device that this machine does not have. Imports torch where it is asked for another than the CPU."""
    if name is None or name == "cpu":
        return
    import torch

    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else []),
             *(["mps"] if torch.backends.mps.is_available() else []),
             *(["xpu"] if hasattr(torch, "xpu") and torch.xpu.is_available() else [])]
    match = _DEVICE.fullmatch(name)
    if match is None:
        raise SciArtError("device", f"{shown(name)} is not known; {did_you_mean(name, there)}")
    if match[1] not in there:
        raise SciArtError("device", f"there is no {match[1]} here; accepted: {', '.join(there)}")
    count = torch.cuda.device_count() if match[1] == "cuda" else 1
    if match[2] is not None and int(match[2]) >= count:
        raise SciArtError("device", f"there is no {name} here; accepted: {match[1]}:0"
                                    + (f" to {match[1]}:{count - 1}" if count > 1 else ""))


def loaded(given: Any) -> Any:
    """The pipeline. On a CPU a small model, such as the tiny one, gets one thread: its layers are too small to share,
    and threads that wait for each other take longer."""
    import torch

    from ..standalone.models import load_pipeline

    with working(f"Loading {name_of(given)}", given.quiet):
        pipe = load_pipeline(given.model, given.config, given.device)
    if pipe.device.type == "cpu" and sum(weight.numel() for weight in pipe.unet.parameters()) < SMALL:
        torch.set_num_threads(1)
    return pipe


def name_of(given: Any) -> str:
    """What a picture's infotext calls the model."""
    return given.model.name if given.model.is_dir() else given.model.stem
