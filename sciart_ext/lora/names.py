"""From the key names of LoRA files, and of models, to one canonical name per layer.

The canonical name is flat and follows the LDM UNet and transformers' CLIP text model:
`unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q`, `te1_text_model_encoder_layers_0_self_attn_q_proj`
(`te2_…` for SDXL's second text encoder). Block numbers of diffusers and LDM differ by fixed rules, because every
UNet of the family has two residual blocks and one resampler per level.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class Key(NamedTuple):
    """A file's key, taken apart: canonical layer name and what the tensor is to it (`down`, `up`, `alpha`, …)."""

    layer: str
    part: str


_FACTORS = {
    "down": (".lora_down", ".lora_A", ".lora_A.default", ".lora.down", ".lora_linear_layer.down", "_lora.down"),
    "up": (".lora_up", ".lora_B", ".lora_B.default", ".lora.up", ".lora_linear_layer.up", "_lora.up"),
    "mid": (".lora_mid",), **{part: (f".{part}",) for part in ("a1", "a2", "b1", "b2")},
}
_OF_PEFT = {
    "lora_magnitude_vector": "magnitude", "ia3_l": "ia3",
    **{part: part for part in (*(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
                               *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")))},
}
_PLAIN = ("alpha", "scale", "dora_scale", "oft_blocks", "oft_diag", "rescale", "on_input", "diff", "diff_b", "w_norm",
          "b_norm")
_PARTS = {
    **{f"{name}.weight": part for part, names in _FACTORS.items() for name in names},
    **{f"{name}.bias": "up_bias" for name in (".lora_up", ".lora_B", ".lora_B.default", ".lora.up")},
    **{f".{name}{default}": part for name, part in _OF_PEFT.items() for default in ("", ".default")},
    **{f".lora_magnitude_vector{default}.weight": "magnitude" for default in ("", ".default")},
    **{f".{part}": part for part in _PLAIN},
}
"""what a key ends with, after the layer's name; none is the end of another"""
_MOST_DOTS = max(ending.count(".") for ending in _PARTS)
_UNDERSCORED = tuple(ending for ending in _PARTS if ending[0] == "_")
_PREFIXES = (("lora_unet_", "unet_"), ("oft_unet_", "unet_"), ("lora_te1_", "te1_"), ("lora_te2_", "te2_"),
             ("lora_te_", "te1_"))
_UNET_BLOCKS = re.compile(r"(down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks)_")

_RENAMED = ("down_blocks_", "mid_block_", "up_blocks_", "output_blocks_")
_BLOCK = re.compile(r"(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)")
_MIDDLE = re.compile(r"mid_block_(attentions|resnets)_(\d+)_(.+)")
_DOWNSAMPLER = re.compile(r"down_blocks_(\d+)_downsamplers_0_conv")
_UPSAMPLER = re.compile(r"up_blocks_(\d+)_upsamplers_0_conv")
_UPSAMPLER_OF_LDM = re.compile(r"output_blocks_(\d+)_[12]_conv")
_OLD_PROJECTION = re.compile(r"\.self_attn\.to_(q|k|v|out)(?:\.0)?$")

_KEPT = 2**13  # keys taken apart: many files have the same ones

_RESNET = {"conv1": "in_layers_2", "conv2": "out_layers_3", "norm1": "in_layers_0", "norm2": "out_layers_0",
           "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}
_WHOLE = {"conv_in": "input_blocks_0_0", "conv_out": "out_2", "conv_norm_out": "out_0",
          "time_embedding_linear_1": "time_embed_0", "time_embedding_linear_2": "time_embed_2",
          "add_embedding_linear_1": "label_emb_0_0", "add_embedding_linear_2": "label_emb_0_2"}


@lru_cache(_KEPT)
def parse_key(key: str) -> Key | None:
    """The canonical layer and part of a LoRA file's key; None for a key of no known form."""
    stem, part = split_key(key) or ("", "")
    layer = layer_name(stem)
    return Key(layer, part) if layer else None


def split_key(key: str) -> tuple[str, str] | None:
    """The layer's name as the file writes it, and the part; None for a key of no known form."""
    if key.endswith(_UNDERSCORED):
        start = key.rindex("_lora.")
    else:
        start = len(key)
        for _ in range(_MOST_DOTS):
            start = key.rfind(".", 0, max(start, 0))
            if key[start:] in _PARTS:
                break
    stem, part = key[:max(start, 0)], _PARTS.get(key[start:])
    return (stem, part) if stem and part and "\n" not in stem else None


@lru_cache(_KEPT)
def layer_name(stem: str) -> str | None:
    """The canonical name of a layer as kohya, diffusers or PEFT write it; None where the model part is unknown."""
    for prefix, target in _PREFIXES:
        if stem.startswith(prefix):
            flat = stem[len(prefix):]
            return target + (unet_name(flat) if target == "unet_" else flat)
    stem = stem[len("base_model.model."):] if stem.startswith("base_model.model.") else stem
    stem = stem[len("lycoris_"):] if stem.startswith("lycoris_") else stem
    stem = stem.replace(".processor.", ".").replace(".base_layer", "")
    stem = f"{stem}.0" if stem.endswith(".to_out") else stem
    stem = _OLD_PROJECTION.sub(r".self_attn.\1_proj", stem) if ".self_attn.to_" in stem else stem
    for prefix, target in (("unet.", "unet_"), ("text_encoder_2.", "te2_"), ("text_encoder.", "te1_")):
        if stem.startswith(prefix):
            flat = stem[len(prefix):].replace(".", "_")
            return target + (unet_name(flat) if target == "unet_" else flat)
    flat = stem.replace(".", "_")
    if flat.startswith("text_model_"):
        return "te1_" + flat
    if flat in _WHOLE or _UNET_BLOCKS.match(flat):
        return "unet_" + unet_name(flat)
    return None


def unet_name(flat: str) -> str:
    """A flat diffusers or LDM UNet name as the canonical, LDM-like one."""
    if flat in _WHOLE:
        return _WHOLE[flat]
    if not flat.startswith(_RENAMED):
        return flat
    match = _BLOCK.fullmatch(flat)
    if match:
        side, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        number = (1 if side == "down" else 0) + 3 * block + index
        return f"{'input' if side == 'down' else 'output'}_blocks_{number}_" + _inside(kind, rest)
    match = _MIDDLE.fullmatch(flat)
    if match:
        number = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block_{number}_" + _inside(match[1], match[3])[2:]
    match = _DOWNSAMPLER.fullmatch(flat)
    if match:
        return f"input_blocks_{3 + 3 * int(match[1])}_0_op"
    match = _UPSAMPLER.fullmatch(flat)
    if match:
        return f"output_blocks_{2 + 3 * int(match[1])}_upsampler_conv"
    match = _UPSAMPLER_OF_LDM.fullmatch(flat)
    # LDM puts the upsampler second, or third after an attention block: one name for both.
    return f"output_blocks_{match[1]}_upsampler_conv" if match else flat


def _inside(kind: str, rest: str) -> str:
    return f"1_{rest}" if kind == "attentions" else f"0_{_RESNET.get(rest, rest)}"


def level_of(layer: str, levels: int) -> int:
    """How many times the grid has been halved where a UNet layer works, in a UNet of so many levels."""
    match = re.match(r"unet_(input|output)_blocks_(\d+)_(.*)", layer)
    if match is None:
        return levels - 1 if layer.startswith("unet_middle_") else 0
    level = int(match[2]) // 3
    if match[1] == "input":
        return level
    return levels - 1 - level - (1 if match[3] == "upsampler_conv" else 0)
