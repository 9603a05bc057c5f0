"""Which base model a LoRA is made for: from shapes and names of its layers, then from what the file says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import SciArtError
from .families import STABLE_DIFFUSION, stated_family
from .kinds import Delta

if TYPE_CHECKING:
    from .file import LoraFile

UNKNOWN = "unknown"
BASES = STABLE_DIFFUSION
_CONTEXT_WIDTHS = {768: "SD1", 1024: "SD2", 2048: "SDXL"}
# Names of layers that SDXL alone has, as they are found in a list of names, one a line.
_OF_SDXL = re.compile(r"^te2_|^unet_.*_transformer_blocks_[1-9]", re.M)
# At the finest grid, and at the third resampling, SDXL's UNet has no such layers; SD 1's and 2's have.
_NOT_SDXL = re.compile(r"unet_(?:input_blocks_(?:[12]_1|9_0|1[01]_)|output_blocks_(?:9|1[01])_)")
_PROJECTION = re.compile(r"unet_.+_1_proj_(?:in|out)$")
_TEXT = re.compile(r"te1_.+_(?:[qkv]_proj|out_proj|fc1)$")
_TEXT_WIDTHS = {768: "SD1", 1024: "SD2"}


def guess_base(layers: Mapping[str, Delta], metadata: Mapping[str, str]) -> str:
    """SD1, SD2, SDXL, another family that the file says it is for, or unknown."""
    for name, delta in layers.items():
        if name.startswith("unet_") and name.endswith("attn2_to_k") and len(delta.shape) > 1:
            if delta.shape[1] in _CONTEXT_WIDTHS:
                return _CONTEXT_WIDTHS[delta.shape[1]]
    if _OF_SDXL.search("\n".join(layers)):
        return "SDXL"
    return stated_family(metadata) or base_of_layers(layers)


def common_base(loras: Sequence[LoraFile]) -> str:
    """The one that files of LoRAs are made for, where they tell, or unknown. Raises `SciArtError` where they are made
    for several."""
    known = {lora.base for lora in loras} - {UNKNOWN}
    if len(known) > 1:
        raise SciArtError("loras", f"made for different models: {told_bases(loras)}")
    return known.pop() if known else UNKNOWN


def told_bases(loras: Sequence[LoraFile]) -> str:
    """Each LoRA with its base, for errors."""
    return ", ".join(f"{lora.name} ({lora.base})" for lora in loras)


def base_of_layers(layers: Mapping[str, Delta]) -> str:
    """SD1, SD2 or unknown, of deltas by canonical layer name.

    SD 1's attention blocks begin with convolutions where those of 2 and XL have matrices; the text encoder is 768 wide
    in SD 1 and XL, 1024 in SD 2.
    """
    found = {_TEXT_WIDTHS.get(delta.shape[1]) for name, delta in layers.items()
             if _TEXT.match(name) and len(delta.shape) == 2} - {None}
    if found == {"SD2"}:
        return "SD2"
    if not any(_NOT_SDXL.match(name) for name in layers):
        return UNKNOWN
    kinds = {len(delta.shape) for name, delta in layers.items() if _PROJECTION.match(name)}
    if kinds:
        return "SD1" if kinds == {4} else "SD2" if kinds == {2} and not found else UNKNOWN
    return found.pop() if len(found) == 1 else UNKNOWN
