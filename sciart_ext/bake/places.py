"""Where in a model's files the layers are that LoRAs reach: LDM checkpoints of SD 1, 2 and XL, and diffusers' folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import SciArtError
from ..lora.names import layer_name
from ..mixer.parameter import META, holder
from ..mixer.targets import Target
from .checkpoint import FLOATS, Checkpoint, Stored

FIRST = "model.diffusion_model.input_blocks.0.0.weight"
_LDM = ("model.diffusion_model.", "cond_stage_model.", "conditioner.embedders.")
_QKV = ("q_proj", "k_proj", "v_proj")
_PROJECTION = "text_projection"


class Place(NamedTuple):
    """Of one layer: the keys of its weight and its bias; number: of q, k and v which it is, where they are one tensor;
    transposed: whether the weight is (in, out), as OpenCLIP's projection is."""

    weight: str
    bias: str | None = None
    number: int | None = None
    transposed: bool = False

    def rows(self, height: int) -> slice | None:
        """Of a tensor of this height."""
        if self.number is None:
            return None
        return slice(self.number * height // 3, (self.number + 1) * height // 3)


def ldm_places(checkpoint: Checkpoint) -> dict[str, Place]:
    """By canonical layer name. Raises `SciArtError` for what is no checkpoint of Stable Diffusion 1, 2 or XL."""
    keys = [one.key for one in checkpoint.tensors]
    if FIRST not in keys:
        raise SciArtError("model", f"{checkpoint.path.name} is no checkpoint of Stable Diffusion 1, 2 or XL: it has no "
                                   f"{FIRST}; accepted: one, or a diffusers folder")
    return _places((key for key in keys if key.startswith(_LDM)), checkpoint)


def part_places(checkpoint: Checkpoint, part: str) -> dict[str, Place]:
    """The same of one file of a diffusers folder; part: unet, text_encoder or text_encoder_2."""
    return _places((one.key for one in checkpoint.tensors), checkpoint, f"{part}.")


def _places(keys: Iterable[str], checkpoint: Checkpoint, prefix: str = "") -> dict[str, Place]:
    stored = {one.key: one for one in checkpoint.tensors}
    places = {}
    for key in keys:
        stem, _, kind = key.rpartition(".")
        if kind == "in_proj_weight":
            bias = f"{stem}.in_proj_bias"
            for number, name in enumerate(_QKV):
                places[layer_name(f"{prefix}{stem}.{name}")] = Place(key, bias if bias in stored else None, number)
        elif kind == _PROJECTION:
            places[layer_name(prefix + key)] = Place(key, transposed=True)
        elif kind == "weight" and len(stored[key].shape) in (1, 2, 4):
            bias = f"{stem}.bias"
            name = layer_name(prefix + stem.replace("ln_final", "final_layer_norm"))  # OpenCLIP's name of it
            if name and "_embeddings_" not in name:
                places[name] = Place(key, bias if bias in stored else None)
    places.pop(None, None)
    return {name: place for name, place in places.items() if stored[place.weight].dtype in FLOATS}


def outlined(places: Mapping[str, Place], checkpoint: Checkpoint) -> dict[str, Target]:
    """The layers as targets without data: what fits them is known by their shapes."""
    stored = {one.key: one for one in checkpoint.tensors}
    return {name: target(place, _empty(stored[place.weight], place.transposed),
                         _empty(stored[place.bias]) if place.bias else None) for name, place in places.items()}


def target(place: Place, weight: torch.Tensor, bias: torch.Tensor | None) -> Target:
    """A layer of these tensors, of which one may be without data."""
    packed = place.number is not None
    module = holder(weight, bias, packed)
    return Target(module, "in_proj_weight" if packed else "weight", module, place.rows(len(weight)))


def _empty(one: Stored, transposed: bool = False) -> torch.Tensor:
    shape = reversed(one.shape) if transposed else one.shape
    return torch.empty(*shape, dtype=FLOATS.get(one.dtype, torch.float32), device=META)


def files_of(folder: Path) -> dict[str, list[Path]]:
    """The weights of a diffusers folder's parts that LoRAs reach. Raises `SciArtError` where there are none, or they
    are kept otherwise than in safetensors."""
    if not (folder / "model_index.json").is_file():
        raise SciArtError("model", f"{folder}: not a diffusers model; there is no model_index.json in it")
    found = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if (folder / part).is_dir():
            found[part] = sorted((folder / part).glob("*.safetensors"))
            if not found[part]:
                raise SciArtError("model", f"{folder / part} has no .safetensors; accepted: a folder with them")
    if "unet" not in found:
        raise SciArtError("model", f"{folder} has no unet; accepted: a model of Stable Diffusion 1, 2 or XL")
    return found
