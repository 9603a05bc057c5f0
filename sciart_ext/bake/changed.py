"""The tensors of a model's file with a mixture in them.

Every changed weight is W + ΔW as the mixer makes it (`mixer.parameter`), computed in single precision or wider and
rounded once to the precision that the tensor has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import torch

from .. import __version__
from ..combine.constants import ConstantWeights
from ..errors import SciArtError
from ..lora.file import LoraFile
from ..lora.finite import is_finite
from ..lora.kinds import BIAS
from ..mixer.parameter import META, merged_parameter
from ..mixer.targets import Target
from ..recipe import Recipe
from .checkpoint import Checkpoint, Stored, pieces, read_tensor
from .places import Place, target


@dataclass(frozen=True)
class Mixed:
    """LoRAs that act, each with its weights, and how they are joined."""

    loras: tuple[LoraFile, ...]
    weights: tuple[ConstantWeights, ...]
    recipe: Recipe

    def acts_on(self, name: str) -> bool:
        """Whether one of them changes this layer, or bias."""
        return any(name in lora.layers and weight.of(name) for lora, weight in zip(self.loras, self.weights))

    def merged(self, name: str, parameter: str, layers: Mapping[str, Target]) -> torch.Tensor | None:
        """W' of a parameter whose parts these layers are, of which one is called `name`."""
        unet = name.startswith("unet_")
        blocks = [weight.blocks if unet else {} for weight in self.weights]
        return merged_parameter(layers, parameter, self.loras, blocks,
                                [weight.unet if unet else weight.text for weight in self.weights],
                                self.recipe.combination)

    def as_data(self, model: str) -> dict:
        """What is baked, as JSON data."""
        combining = {"combine": self.recipe.combine} if self.recipe.combination else {}
        return {"model": model, "loras": [{"name": lora.name, "file": lora.path.name, **weight.as_data()}
                                          for lora, weight in zip(self.loras, self.weights)],
                **combining, "sciart": __version__}


@dataclass(frozen=True)
class ModelFile:
    """One file of a model, and where the layers are in it."""

    checkpoint: Checkpoint
    places: dict[str, Place]


def tensors_of(file: ModelFile, source: BinaryIO, mixed: Mixed) -> Iterator[torch.Tensor | Iterator[bytes]]:
    """What each tensor of the file is to be, in the file's order: its own bytes where no LoRA changes it."""
    parts: dict[str, list[str]] = {}
    for name, place in file.places.items():
        parts.setdefault(place.weight, []).append(name)
        if place.bias is not None:
            parts.setdefault(place.bias, []).append(name + BIAS)
    stored = {one.key: one for one in file.checkpoint.tensors}
    for one in file.checkpoint.tensors:
        names = parts.get(one.key, [])
        changed = None
        if any(map(mixed.acts_on, names)):
            changed = _changed(file, source, one, names, stored, mixed)
        yield pieces(file.checkpoint, source, one) if changed is None else changed


def _changed(file: ModelFile, source: BinaryIO, one: Stored, names: Sequence[str], stored: Mapping[str, Stored],
             mixed: Mixed) -> torch.Tensor | None:
    original = read_tensor(file.checkpoint, source, one)
    wide = original.to(torch.promote_types(torch.float32, original.dtype) if original.dtype.itemsize > 1
                       else torch.float32)
    layers = {}
    is_bias = names[0].endswith(BIAS)
    for name in (name.removesuffix(BIAS) for name in names):
        place = file.places[name]
        weight = _without_data(stored[place.weight], place.transposed) if is_bias else (
            wide.t().contiguous() if place.transposed else wide)
        bias = wide if is_bias else None if place.bias is None else _without_data(stored[place.bias])
        layers[name] = target(place, weight, bias)
    if len(layers) > 1:  # q, k and v: parts of one and the same parameter
        module = next(iter(layers.values())).module
        layers = {name: replace(each, module=module, bracket=module) for name, each in layers.items()}
    parameter = next(iter(layers.values()))
    merged = mixed.merged(names[0], (parameter.bias() if is_bias else parameter).parameter, layers)
    if merged is None:
        return None
    merged = merged.t() if file.places[names[0].removesuffix(BIAS)].transposed else merged
    result = merged.detach().to(original.dtype)
    if not is_finite(result.to(wide.dtype)) and is_finite(wide):
        raise SciArtError(file.checkpoint.path.name, f"{one.key} would hold numbers too large for {one.dtype}; "
                                                     "accepted: lower weights, or a checkpoint of single precision")
    return result


def _without_data(one: Stored, transposed: bool = False) -> torch.Tensor:
    return torch.empty(*(reversed(one.shape) if transposed else one.shape), device=META)
