"""The base model of LoRAs that do not tell it: from names and shapes of layers that not every family has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..lora.kinds import Delta

UNKNOWN = "unknown"
BASES = ("SD1", "SD2", "SDXL")
# At the finest grid, and at the third resampling, SDXL's UNet has no such layers; SD 1's and 2's have.
_NOT_SDXL = re.compile(r"unet_(?:input_blocks_(?:[12]_1|9_0|1[01]_)|output_blocks_(?:9|1[01])_)")
_PROJECTION = re.compile(r"unet_.+_1_proj_(?:in|out)$")
_TEXT = re.compile(r"te1_.+_(?:[qkv]_proj|out_proj|fc1)$")
_TEXT_WIDTHS = {768: "SD1", 1024: "SD2"}


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
        return "SD1" if kinds == {4} else "SD2" if kinds == {2} else UNKNOWN
    return found.pop() if len(found) == 1 else UNKNOWN
