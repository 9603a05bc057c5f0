"""Whether LoRA files fit a model: which layers match, which do not, and deltas in the layer's own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ..errors import SciArtError
from ..lora.base_model import UNKNOWN
from ..lora.kinds import BIAS, Delta
from ..lora.low_rank import LowRank
from .targets import Target
from .whole import Whole

if TYPE_CHECKING:
    from ..lora.file import LoraFile

FACTORED_RANK = 64
"""up to which rank a delta that has exact thin factors is carried out by them, where they are smaller than it"""

LATENT, WIDER_INPUTS = 4, (8, 9)
"""Channels of a latent, and of the inputs of InstructPix2Pix and inpainting models, which read a picture, or a mask and
a masked picture, beside it: a LoRA of a plain model says nothing about these."""

OF_VARIANTS = ("unet_input_blocks_0_0", "unet_out_2", "unet_label_emb_0_0")
"""The layers by which variants of a family differ: where the UNet reads and gives a latent, and SDXL's conditioning."""


class Factors(NamedTuple):
    """A delta in the shape of one layer: down (rank, in·kh·kw), up (out, rank)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def check_fit(loras: Sequence[LoraFile], layers: Mapping[str, Target], model: str) -> list[str]:
    """Notes on LoRAs that reach only a part of the model; a LoRA that fits no layer, or has other shapes, raises."""
    check_families(loras, family_of(layers), model)
    notes = []
    for lora in loras:
        targets = {name: target_of(name, layers) for name in lora.layers}
        unmatched = [name for name, target in targets.items() if target is None]
        if len(unmatched) == len(targets):
            raise SciArtError(lora.path.name, f"fits no layer of {model}{_made_for(lora)}; "
                                              f"its first layer is {unmatched[0]}")
        misfits = [name for name, target in targets.items()
                   if target is not None and shape_delta(lora.layers[name], target) is None]
        wrong = next((name for name in misfits if not may_differ(name)), None)
        if wrong is not None or len(misfits) + len(unmatched) == len(targets):
            name = wrong or misfits[0]
            raise SciArtError(lora.path.name, f"{_told_misfit(name, lora, targets[name], model)}{_made_for(lora)}")
        notes += [f"{lora.name}: {_told_misfit(name, lora, targets[name], model)}; it was left out" for name in misfits]
        if unmatched:
            notes.append(f"{lora.name}: {len(unmatched)} of {len(lora.layers)} layers are not in {model} and were "
                         f"left out (first: {unmatched[0]})")
        notes += lora.notes()
    return notes


def check_families(loras: Sequence[LoraFile], family: str | None, model: str) -> None:
    """Refuses LoRAs that are made for another family of models than this one (SD1, SD2, SDXL; None: not known),
    whichever of their layers happen to fit: text encoders of several families have layers of one shape."""
    for lora in loras:
        if family is not None and lora.base not in (UNKNOWN, family):
            raise SciArtError(lora.path.name, f"it is made for {lora.base}, and {model} is of the family {family}; "
                                              f"accepted: LoRAs for {family}")


def family_of(layers: Mapping[str, Target]) -> str | None:
    """SD1, SD2 or SDXL, by the layers of a whole model; None where they do not tell.

    SDXL alone has a second text encoder; SD 1's attention blocks begin with convolutions, 2's with matrices.
    """
    if any(name.startswith("te2_") for name in layers):
        return "SDXL"
    if not any(name.startswith("te1_") for name in layers):
        return None
    for name, target in layers.items():
        if name.startswith("unet_") and name.endswith("_1_proj_in"):
            return "SD1" if isinstance(target.module, nn.Conv2d) else "SD2"
    return None


def may_differ(name: str) -> bool:
    """Whether a layer has another shape in variants of one family, such as inpainting models: a LoRA of one is right
    for the other in all other layers."""
    return name.removesuffix(BIAS) in OF_VARIANTS


def _told_misfit(name: str, lora: LoraFile, target: Target, model: str) -> str:
    return f"{name} has shape {tuple(lora.layers[name].shape)}, the layer of {model} has {_told_shape(target)}"


def target_of(name: str, layers: Mapping[str, Target]) -> Target | None:
    """The weight or bias of this name; None where the model has no such layer."""
    if name in layers or not name.endswith(BIAS):
        return layers.get(name)
    target = layers.get(name[:-len(BIAS)])
    return target and target.bias()


def shape_delta(delta: Delta, target: Target) -> Factors | Whole | None:
    """The delta as the target's weight takes it, as thin factors where it has them; None where it does not fit."""
    if isinstance(delta, LowRank):
        return shape_factors(delta, target)
    shape = _shape(target)
    if shape is None:
        return Whole(delta) if len(delta.shape) == 1 and target.can_branch else None
    if delta.fits(shape):
        m, n = shape[0], torch.Size(shape[1:]).numel()
        if 0 < delta.factored_rank <= FACTORED_RANK and delta.factored_rank * (m + n) < m * n:
            thin = delta.factored()
            return Factors(thin.down, thin.up, thin.scale)
        return Whole(delta)
    if len(shape) == 4 and shape[1] in WIDER_INPUTS and delta.fits((shape[0], LATENT, *shape[2:])):
        return Whole(delta, channels=LATENT)
    return None


def shape_factors(delta: LowRank, target: Target) -> Factors | None:
    """The delta's factors as matrices for the target's weight; None where their shapes do not fit."""
    module = target.module
    if target.is_norm or target.is_bias:
        return None
    out, inputs = _matrix_shape(target)
    kernel = module.kernel_size if isinstance(module, nn.Conv2d) else (1, 1)
    given, reached, *own_kernel = delta.shape
    if given != out or getattr(module, "groups", 1) != 1:
        return None
    if not own_kernel and reached == inputs:  # a kernel kept as a matrix, as ComfyUI may
        return Factors(delta.down, delta.up.reshape(given, -1), delta.scale)
    if tuple(own_kernel or (1, 1)) != tuple(kernel):
        return None
    channels = inputs // (kernel[0] * kernel[1])
    wider = channels in WIDER_INPUTS and reached == LATENT and isinstance(module, nn.Conv2d)
    if reached != channels and not wider:
        return None
    down, up = delta.down, delta.up.reshape(given, -1)
    if wider:
        down = torch.nn.functional.pad(down, (0, 0, 0, 0, 0, channels - LATENT))
    return Factors(down.reshape(down.shape[0], -1), up, delta.scale)


def _shape(target: Target) -> tuple[int, ...] | None:
    """Of the target's own part of its parameter; None for a bias that is not there."""
    weight = target.weight()
    if weight is None:
        return None
    rows = weight.shape[0] if target.rows is None else target.rows.stop - target.rows.start
    return (rows, *weight.shape[1:])


def _matrix_shape(target: Target) -> tuple[int, int]:
    shape = _shape(target)
    return shape[0], torch.Size(shape[1:]).numel()


def _told_shape(target: Target) -> str:
    shape = _shape(target)
    return "no bias" if shape is None else str(tuple(target.weight().shape))


def _made_for(lora: LoraFile) -> str:
    return f"; it is made for {lora.base}" if lora.base != "unknown" else ""
