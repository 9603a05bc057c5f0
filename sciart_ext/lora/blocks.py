"""Where in a model a layer is, as users of LoRAs call it: BASE, IN00 to IN11, M00, OUT00 to OUT11, and of what kind.

The lists of block weights are those of hako-mikan/sd-webui-lora-block-weight, which the field writes them in.
"""

from __future__ import annotations

import re

BASE = "BASE"
LABELS = (BASE, *(f"IN{number:02d}" for number in range(12)), "M00", *(f"OUT{number:02d}" for number in range(12)))
GROUPS = ("in", "mid", "out")
KINDS = ("attention", "feed_forward", "convolution")


def _labels(inputs: str, outputs: str) -> tuple[str, ...]:
    return (BASE, *(f"IN{number}" for number in inputs.split()), "M00", *(f"OUT{number}" for number in outputs.split()))


LISTS = {
    17: _labels("01 02 04 05 07 08", "03 04 05 06 07 08 09 10 11"),
    26: LABELS,
    12: _labels("04 05 07 08", "00 01 02 03 04 05"),
    20: _labels("00 01 02 03 04 05 06 07 08", "00 01 02 03 04 05 06 07 08"),
}
"""labels of a list of so many values: blocks with attention of SD1, all of SD1; the same of SDXL"""

_GROUPS = {"unet_input_": "in", "unet_middle_": "mid", "unet_output_": "out", "unet_out_": "out"}
_SIDES = {"input": "IN", "output": "OUT"}


def label_of(layer: str) -> str | None:
    """BASE for text encoders, IN00 to OUT11 for the UNet's blocks, None for what is in none of them."""
    if not layer.startswith("unet_"):
        return BASE
    match = re.match(r"unet_(input|output)_blocks_(\d+)_|unet_(middle)_block_", layer)
    if match is None:
        return None
    return "M00" if match[3] else f"{_SIDES[match[1]]}{int(match[2]):02d}"


def group_of(layer: str) -> str | None:
    """Which part of the UNet a layer is in: in, mid or out; None outside (time embedding, text encoders)."""
    return next((group for prefix, group in _GROUPS.items() if layer.startswith(prefix)), None)


def kind_of(layer: str) -> str | None:
    """Of a UNet layer: attention, with its projections and norms; feed_forward; convolution, with what else a residual
    block has; None outside the blocks and in the text encoders."""
    if group_of(layer) is None:
        return None
    if "_ff_net_" in layer or "_norm3" in layer:
        return "feed_forward"
    inside = "_transformer_blocks_" in layer or re.search(r"_proj_(in|out)$|_1_norm$", layer)
    return "attention" if inside else "convolution"
