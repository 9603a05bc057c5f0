"""What a model is, from its configuration or its file's header: known before any weights are read. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from ..errors import SciArtError

CHECKPOINTS = (".safetensors", ".ckpt")
SUPPORTED = "Stable Diffusion 1, 2 and XL"
_PIPELINES = {"StableDiffusionPipeline": "", "StableDiffusionXLPipeline": "SDXL"}
# names in a checkpoint: of the text encoder of SD 1, 2 and of XL's second
_MARKS = {"conditioner.embedders.1.": "SDXL", "cond_stage_model.model.": "SD2", "cond_stage_model.transformer.": "SD1"}


class ModelFacts(NamedTuple):
    """family: SD1, SD2, SDXL, or None where only the weights tell; side: of its pictures, in pixels, and layers: of its
    smallest text encoder, None where only its configuration tells."""

    family: str | None
    side: int | None = None
    layers: int | None = None


def model_facts(path: Path, config: Path | None = None) -> ModelFacts:
    """Of a diffusers folder, or of a single checkpoint file. config: the diffusers folder that is given with a file.

    Raises `SciArtError` for what is neither, and for other models than Stable Diffusion 1, 2 and XL.
    """
    path = Path(path)
    if not path.exists():
        raise SciArtError("model", f"{path}: no such file or folder")
    if path.is_dir():
        return _of_folder(path, "model")
    if path.suffix.lower() not in CHECKPOINTS:
        raise SciArtError("model", f"{path.name}: accepted are a diffusers folder and {', '.join(CHECKPOINTS)}")
    told = _of_folder(Path(config), "config") if config is not None else ModelFacts(None)
    if path.suffix.lower() != ".safetensors":
        return told
    return told._replace(family=_family_of_names(path))


def is_xl(facts: ModelFacts) -> bool:
    """Whether it has SDXL's two text encoders."""
    return facts.family == "SDXL"


def names_in(file: Path) -> list[str]:
    """The names of the tensors in a safetensors file of a model; it may hold other kinds than a LoRA's may."""
    try:
        with safe_open(file, framework="numpy") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise SciArtError("model", f"{file} cannot be read: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Of what a library says."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _of_folder(path: Path, field: str) -> ModelFacts:
    index = path / "model_index.json"
    if not index.is_file():
        raise SciArtError(field, f"{path}: not a diffusers model; there is no model_index.json in it")
    told = _json(index, field)
    kind = told.get("_class_name")
    if kind not in _PIPELINES:
        raise SciArtError(field, f"{path.name} is a {kind or 'pipeline of no name'}; accepted: {SUPPORTED}")
    parts = [name for name in ("text_encoder", "text_encoder_2") if _is_there(told, name)]
    missing = next((name for name in ("unet", "vae", *parts) if not (path / name / "config.json").is_file()), None)
    if missing is not None:
        raise SciArtError(field, f"{path}: there is no {missing}/config.json in it")
    unet, vae = _json(path / "unet" / "config.json", field), _json(path / "vae" / "config.json", field)
    encoders = [_json(path / part / "config.json", field) for part in parts]
    family = _PIPELINES[kind] or ("SD2" if unet.get("use_linear_projection") else "SD1")
    layers = [encoder["num_hidden_layers"] for encoder in encoders if "num_hidden_layers" in encoder]
    side = (unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
            if isinstance(unet.get("sample_size"), int) and vae.get("block_out_channels") else None)
    return ModelFacts(family, side, min(layers, default=None))


def _is_there(index: dict, part: str) -> bool:
    return bool(index.get(part)) and index[part][0] is not None


def _json(path: Path, field: str) -> dict:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SciArtError(field, f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(told, dict):
        raise SciArtError(field, f"{path} is not a model's configuration")
    return told


def _family_of_names(path: Path) -> str:
    names = names_in(path)
    for mark, family in _MARKS.items():
        if any(name.startswith(mark) for name in names):
            return family
    hint = "; it is a LoRA, which --lora takes" if any("lora" in name for name in names) else ""
    raise SciArtError("model", f"{path.name} is no checkpoint of {SUPPORTED}{hint}")
