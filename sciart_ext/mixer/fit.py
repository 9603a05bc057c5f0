"""Whether LoRA files fit a model: which layers match, which do not, and factors in the layer's own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..errors import SciArtError
from ..lora.file import LoraFile
from ..lora.kinds import LowRank
from .targets import Target


class Factors(NamedTuple):
    """A delta in the shape of one layer: down (rank, in·kh·kw), up (out, rank)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def check_fit(loras: Sequence[LoraFile], layers: Mapping[str, Target], model: str) -> list[str]:
    """Notes on LoRAs that reach only a part of the model; a LoRA that fits no layer, or has other shapes, raises."""
    notes = []
    for lora in loras:
        unmatched = [name for name in lora.layers if name not in layers]
        if len(unmatched) == len(lora.layers):
            raise SciArtError(lora.path.name, f"fits no layer of {model}{_made_for(lora)}; "
                                              f"its first layer is {unmatched[0]}")
        for name, delta in lora.layers.items():
            if name in layers and shape_factors(delta, layers[name]) is None:
                raise SciArtError(lora.path.name, f"{name} has shape {_shape(delta)}, the layer of {model} has "
                                                  f"{tuple(layers[name].weight().shape)}{_made_for(lora)}")
        if unmatched:
            notes.append(f"{lora.name}: {len(unmatched)} of {len(lora.layers)} layers are not in {model} and were "
                         f"left out (first: {unmatched[0]})")
    return notes


def shape_factors(delta: LowRank, target: Target) -> Factors | None:
    """The delta's factors as matrices for the target's weight; None where their shapes do not fit."""
    module = target.module
    out, inputs = _matrix_shape(target)
    kernel = module.kernel_size if isinstance(module, nn.Conv2d) else (1, 1)
    down, up = delta.down, delta.up.reshape(delta.up.shape[0], -1)
    if down.dim() == 2:
        down = down[:, :, None, None]
    if tuple(down.shape[2:]) != tuple(kernel) or up.shape[0] != out or getattr(module, "groups", 1) != 1:
        return None
    channels = inputs // (kernel[0] * kernel[1])
    if channels == 9 and down.shape[1] == 4 and isinstance(module, nn.Conv2d):
        # Inpainting models take mask and masked picture beside the latent: the LoRA says nothing about them.
        down = torch.nn.functional.pad(down, (0, 0, 0, 0, 0, 5))
    if down.shape[1] != channels:
        return None
    return Factors(down.reshape(down.shape[0], -1), up, delta.scale)


def _matrix_shape(target: Target) -> tuple[int, int]:
    weight = target.weight()
    rows = weight.shape[0] if target.rows is None else target.rows.stop - target.rows.start
    return rows, weight[0].numel()


def _made_for(lora: LoraFile) -> str:
    return f"; it is made for {lora.base}" if lora.base != "unknown" else ""


def _shape(delta: LowRank) -> tuple[int, ...]:
    return (delta.up.shape[0], *delta.down.shape[1:])
