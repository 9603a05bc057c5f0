"""The merged weight of a single parameter, made as a mixer makes it, of a model that is not in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .bracket import Bracket
from .build import build_layers, build_stacks
from .gate_table import GateTable
from .gates import Gates
from .kept import Room
from .slot import Slot
from .targets import Target

if TYPE_CHECKING:
    from ..lora.file import LoraFile
    from ..recipe.combining import Combination

META = torch.device("meta")


def holder(weight: Tensor, bias: Tensor | None, packed: bool = False) -> nn.Module:
    """A module of the kind that has such a weight: a linear layer (out, in), a convolution (out, in, kh, kw), a norm
    (width,); packed: the attention that has q, k and v in one, `in_proj_weight`."""
    if packed:
        module = nn.Module()
    elif weight.dim() == 4:
        out, inputs, *kernel = weight.shape
        module = nn.Conv2d(inputs, out, tuple(kernel), bias=False, device=META)
    elif weight.dim() == 2:
        module = nn.Linear(*reversed(weight.shape), bias=False, device=META)
    else:
        module = nn.LayerNorm(weight.shape, device=META)
    prefix = "in_proj_" if packed else ""
    for name, tensor in (("weight", weight), ("bias", bias)):
        parameter = None if tensor is None else nn.Parameter(tensor, requires_grad=False)
        module.register_parameter(prefix + name, parameter)
    return module


@torch.no_grad()
def merged_parameter(targets: Mapping[str, Target], parameter: str, loras: Sequence[LoraFile],
                     blocks: Sequence[Mapping | Sequence[float]], weights: Sequence[float],
                     combination: Combination | None) -> Tensor | None:
    """W' of one parameter of one module; None where no LoRA changes it.

    targets: the layers that are parts of it, by canonical name; blocks: constant factors of each LoRA; weights: λ of
    each.
    """
    built = build_layers(targets, loras, blocks, [], None, combination, Room(math.inf))
    layers = [layer for layer in built if layer.target.parameter == parameter]
    if not layers:
        return None
    gates, table = Gates([tuple(weights)]), GateTable(build_stacks(layers, levels=1))
    slot = Slot(layers[0].target)
    slot.layers = layers
    table.spread(gates, torch.device("cpu"))
    Bracket([slot], table).refresh(gates)
    for layer in layers:  # a stack and its layers hold each other: parted, all that they hold is let go of at once
        layer.stack = None
    return slot.merged
