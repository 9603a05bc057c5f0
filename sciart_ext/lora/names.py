"""From the names that layers have in LoRA files, and in models, to one canonical name per layer.

The canonical name is flat and follows the LDM UNet and transformers' CLIP text model:
`unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q`, `te1_text_model_encoder_layers_0_self_attn_q_proj`
(`te2_…` for SDXL's second text encoder). Block numbers of diffusers and LDM differ by fixed rules, because every
UNet of the family has two residual blocks and one resampler per level.
"""

from __future__ import annotations

import re
from functools import lru_cache

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer", "base_model", "module",
             "processor")
"""what torch, PEFT and old diffusers put into the names of layers that they wrap; `base_model` with `model` after it"""
_PREFIXES = {
    "unet": ("lora_unet_", "oft_unet_", "unet_", "diffusion_model_", "model_diffusion_model_"),
    "te1": ("lora_te_", "lora_te1_", "text_encoder_", "text_encoders_clip_l_transformer_", "text_encoders_clip_l_",
            "text_encoders_clip_h_transformer_", "text_encoders_clip_h_", "clip_l_transformer_", "clip_h_transformer_",
            "cond_stage_model_transformer_", "cond_stage_model_model_", "conditioner_embedders_0_transformer_",
            "0_transformer_", "transformer_", "model_"),
    "te2": ("lora_te2_", "text_encoder_2_", "text_encoders_clip_g_transformer_", "text_encoders_clip_g_",
            "clip_g_transformer_", "conditioner_embedders_1_model_", "1_model_"),
}
"""how kohya, diffusers, ComfyUI, LDM, sgm and A1111 begin names of layers, with _ for each dot; those of the UNet and
the first text encoder may begin with none of these"""
_PART_OF = {prefix: part for part, prefixes in _PREFIXES.items() for prefix in prefixes}
_PREFIX = re.compile("|".join(sorted(_PART_OF, key=len, reverse=True)))

_OF_UNET = re.compile(r"(down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks|time_embed|label_emb)_"
                      r"|out_[02]$")
_OF_ANIMATION = "motion_module"
_OF_TEXT = re.compile(r"encoder_layers_\d|final_layer_norm$|embeddings_(token|position)_embedding$")
_OLD_PROJECTION = re.compile(r"_self_attn_to_(q|k|v|out)(?:_0)?$")
_OPEN_CLIP = re.compile(r"(?:transformer_)?resblocks_(\d+)_(.+)")
_OF_OPEN_CLIP = {"attn_out_proj": "self_attn_out_proj", "attn_q_proj": "self_attn_q_proj",
                 "attn_k_proj": "self_attn_k_proj", "attn_v_proj": "self_attn_v_proj", "mlp_c_fc": "mlp_fc1",
                 "mlp_c_proj": "mlp_fc2", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}

_RENAMED = ("down_blocks_", "mid_block_", "up_blocks_", "output_blocks_")
_BLOCK = re.compile(r"(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)")
_MIDDLE = re.compile(r"mid_block_(attentions|resnets)_(\d+)_(.+)")
_DOWNSAMPLER = re.compile(r"down_blocks_(\d+)_downsamplers_0_conv")
_UPSAMPLER = re.compile(r"up_blocks_(\d+)_upsamplers_0_conv")
_UPSAMPLER_OF_LDM = re.compile(r"output_blocks_(\d+)_[12]_conv")

_RESNET = {"conv1": "in_layers_2", "conv2": "out_layers_3", "norm1": "in_layers_0", "norm2": "out_layers_0",
           "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}
_WHOLE = {"conv_in": "input_blocks_0_0", "conv_out": "out_2", "conv_norm_out": "out_0",
          "time_embedding_linear_1": "time_embed_0", "time_embedding_linear_2": "time_embed_2",
          "add_embedding_linear_1": "label_emb_0_0", "add_embedding_linear_2": "label_emb_0_2"}

_KEPT = 2**13  # names: many files have the same ones


@lru_cache(_KEPT)
def layer_name(stem: str) -> str | None:
    """The canonical name of a layer as a file calls it; None where it is of no part of a Stable Diffusion model."""
    flat = _unwrapped(stem).removeprefix("lycoris_")
    match = _PREFIX.match(flat)
    rest = (flat[match.end():] if match else flat).removeprefix("module_")
    for part in (_PART_OF[match[0]],) if match else ("unet", "te1"):
        body = _unet_body(rest) if part == "unet" else text_name(rest)
        if body:
            return f"{part}_{body}"
    return None


def _unwrapped(stem: str) -> str:
    """The name with _ for each dot, without what wraps the layer or its model."""
    names = stem.split(".")
    if not set(_WRAPPERS).isdisjoint(names):
        names = [name for i, name in enumerate(names) if name not in _WRAPPERS
                 and not (name == "model" and i and names[i - 1] == "base_model")]
    flat = "_".join(names)
    return flat.replace("__orig_mod_", "_").replace("_processor_to_", "_to_")


def _unet_body(flat: str) -> str | None:
    if not (flat in _WHOLE or _OF_UNET.match(flat)) or _OF_ANIMATION in flat:
        return None
    return unet_name(f"{flat}_0" if flat.endswith("_to_out") else flat)


def text_name(flat: str) -> str | None:
    """A flat name of a layer of CLIP's text model as transformers, of any version, or OpenCLIP has it, as that of
    transformers before 5.6; None for other names."""
    inside = flat.removeprefix("text_model_")
    match = _OPEN_CLIP.fullmatch(inside)
    if match and match[2] in _OF_OPEN_CLIP:
        inside = f"encoder_layers_{match[1]}_{_OF_OPEN_CLIP[match[2]]}"
    inside = "final_layer_norm" if inside == "ln_final" else inside
    if inside == "text_projection":
        return inside
    return f"text_model_{_OLD_PROJECTION.sub(_new_projection, inside)}" if _OF_TEXT.match(inside) else None


def _new_projection(match: re.Match[str]) -> str:
    return f"_self_attn_{match[1]}_proj"


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
