"""What a mixer is made of: layers from LoRA files, and stacks of layers of one shape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ..lora.kinds import BIAS
from ..recipe.layer_factors import Factor, LayerFactors
from .combined import combined_layer
from .cost import place_of
from .fit import may_differ, shape_delta
from .kept import Room
from .layer import Layer
from .masked_layer import MaskedLayer
from .stack import Stack
from .targets import Target

if TYPE_CHECKING:
    from ..lora.file import LoraFile
    from ..recipe.combining import Combination


def build_layers(targets: Mapping[str, Target], loras: Sequence[LoraFile],
                 blocks: Sequence[Mapping | Sequence[float]], varying: Sequence[tuple[int, Factor]],
                 untouched: Callable[[Target], torch.Tensor] | None, combination: Combination | None,
                 room: Room, masked: Collection[int] = ()) -> list[Layer]:
    """The layers that LoRAs reach; varying: `varying_factors` of the blocks, which have gates after the LoRAs' own.
    Other arguments: `Mixer`'s; room: of deltas that are kept between calls. A layer that LoRAs with masks reach, and
    others too, is there twice."""
    layers, factors, levels = [], [LayerFactors(one) for one in blocks], levels_of(targets)
    owner = dict(enumerate([*range(len(loras)), *(k for k, _ in varying)]))
    gates = {(k, factor.schedules): number for number, (k, factor) in enumerate(varying, start=len(loras))}
    for weight_name, weight_target in targets.items():
        for name, target in ((weight_name, weight_target), (weight_name + BIAS, weight_target.bias())):
            deltas, block_factors, stems = {}, {}, {}
            for k, lora in enumerate(loras):
                if name in lora.layers and (factor := factors[k].of(weight_name)).constant:
                    delta = shape_delta(lora.layers[name], target)
                    if delta is None and may_differ(name):
                        continue
                    if delta is None:
                        raise ValueError(f"{lora.path.name}: {name} does not fit; check_fit tells before")
                    gate = gates.get((k, factor.schedules), k)
                    deltas[gate] = delta
                    block_factors[gate], stems[gate] = factor.constant, lora.path.stem
            placed = {gate: deltas.pop(gate) for gate in [*deltas] if owner[gate] in masked}
            if placed:
                layers.append(MaskedLayer(name, target, placed, block_factors, room, owner, levels, untouched))
            if deltas and combination is None:
                layers.append(Layer(name, target, deltas, block_factors, room, untouched))
            elif deltas:
                layers.append(combined_layer(name, target, deltas, block_factors, combination, stems, room, untouched))
    return layers


def build_stacks(layers: Sequence[Layer], levels: int) -> list[Stack]:
    """Layers of one shape, LoRAs, precision and place in the model share a stack: what is best for one is for all.
    Where only some of them fit in memory, those of the first names are not merged (`choose_merged`)."""
    groups: dict[tuple, list[Layer]] = {}
    for layer in sorted(layers, key=lambda layer: layer.name, reverse=True):
        if layer.factors and not layer.merges_alone:
            groups.setdefault(_group_of(layer, levels), []).append(layer)
    return [Stack(group) for group in groups.values()]


def _group_of(layer: Layer, levels: int) -> tuple:
    if not layer.is_plain:
        return (layer.name, *layer.loras)
    weight = layer.target.weight()
    down = next(iter(layer.factors.values())).down
    return (*layer.loras, *layer.matrix_shape, layer.ranks, down.dtype, weight.dtype, weight.device,
            id(layer.target.bracket), place_of(layer.name, levels), layer.kernel_size)


def levels_of(names: Iterable[str]) -> int:
    """How many grid sizes the UNet has, from the highest number among its input blocks."""
    numbers = [int(name.split("_")[3]) for name in names if name.startswith("unet_input_blocks_")]
    return max(numbers, default=0) // 3 + 1
