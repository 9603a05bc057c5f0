"""From canonical layer names to the keys that kohya's trainer writes, which every program that loads LoRAs knows."""

from __future__ import annotations

import re

from .names import _RESNET, _WHOLE

_PARTS = {"unet": "lora_unet_", "te1": "lora_te_", "te2": "lora_te2_"}
_RESNET_OF = {ours: theirs for theirs, ours in _RESNET.items()}
_WHOLE_OF = {ours: theirs for theirs, ours in _WHOLE.items()}


def kohya_name(layer: str, sdxl: bool) -> str:
    """The layer as kohya calls it: the UNet's layers by LDM's names for SDXL, by diffusers' for SD 1 and 2."""
    part, _, flat = layer.partition("_")
    if part == "unet":
        flat = re.sub(r"^(output_blocks_\d+)_upsampler_conv$", r"\1_2_conv", flat) if sdxl else _diffusers_name(flat)
    return ("lora_te1_" if part == "te1" and sdxl else _PARTS[part]) + flat


def _diffusers_name(flat: str) -> str:
    """A canonical UNet name as diffusers has it, flat."""
    if flat in _WHOLE_OF:
        return _WHOLE_OF[flat]
    match = re.fullmatch(r"input_blocks_(\d+)_0_op", flat)
    if match:
        return f"down_blocks_{int(match[1]) // 3 - 1}_downsamplers_0_conv"
    match = re.fullmatch(r"output_blocks_(\d+)_upsampler_conv", flat)
    if match:
        return f"up_blocks_{int(match[1]) // 3}_upsamplers_0_conv"
    match = re.fullmatch(r"(input|output)_blocks_(\d+)_([01])_(.+)", flat)
    if match:
        number = int(match[2]) - (match[1] == "input")
        side = "down" if match[1] == "input" else "up"
        return f"{side}_blocks_{number // 3}_" + _inside(match[3] == "1", number % 3, match[4])
    match = re.fullmatch(r"middle_block_([012])_(.+)", flat)
    if match:
        return "mid_block_" + _inside(match[1] == "1", int(match[1]) // 2, match[2])
    return flat


def _inside(attention: bool, index: int, rest: str) -> str:
    return f"attentions_{index}_{rest}" if attention else f"resnets_{index}_{_RESNET_OF.get(rest, rest)}"
