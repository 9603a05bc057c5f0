"""LoRAs, and whole models, of other families than Stable Diffusion 1, 2 and XL: which one, from names and sizes of
layers.

The names are those that trainers and programs write: kohya's sd-scripts and musubi-tuner (`lora_unet_…`, dots as
underscores), diffusers and PEFT (`transformer.…`), OneTrainer (`lora_transformer_…`), ComfyUI (`diffusion_model.…`) and
the models' own code. Some families have the same names; there the width of a layer or the number of layers tells, and
where neither does, both are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOST_FORMS = 1000
"""names that differ in more than numbers; a file of any model has some hundred"""
AT_ONCE = 1000
"""keys that are looked at together: one by one takes long, all of a file with long ones much memory"""
_PREFIX = re.compile(r"^(?:(?:base_model\.model|model\.diffusion_model|diffusion_model|lora_unet|lora_transformer|"
                     r"lora|lycoris|unet|transformer(?=\.)|dit|net|module|_orig_mod|model)[._])*")
_NUMBER = re.compile(r"\d+")


class Form(NamedTuple):
    """Keys that differ in numbers alone, which are 0 in `name`: they and the sizes of all their tensors."""

    name: str
    keys: list[str]
    sizes: set[int]

    @property
    def highest(self) -> int:
        """Of the first numbers in the keys."""
        numbers = (_NUMBER.search(key) for key in self.keys)
        return max((int(number[0]) for number in numbers if number and len(number[0]) < 6), default=0)


class _Mark(NamedTuple):
    """What tells of a family: a form's name, from its start; where given, one of these sizes, or as high a number."""

    family: str
    name: re.Pattern
    sizes: frozenset[int] = frozenset()
    number: int = 0

    def is_in(self, form: Form) -> bool:
        return bool(self.name.match(form.name) and (not self.sizes or self.sizes & form.sizes)
                    and (not self.number or form.highest >= self.number))


def _mark(family: str, name: str, *sizes: int, number: int = 0) -> _Mark:
    return _Mark(family, re.compile(name), frozenset(sizes), number)


# Checked in this order: the first that is in a file names its family.
_MARKS = (
    _mark("Stable Cascade", r"(?:down|up)_blocks_0_0_(?:channelwise|depthwise|attention|kv_mapper|mapper)_"),
    _mark("Stable Cascade", r"prior_(?:unet|te)_"),
    _mark("Stable Cascade", r"clip_(?:txt|img)_mapper_|effnet_mapper_"),
    # two streams, then one: Flux and what has its layers
    _mark("Chroma", r"distilled_guidance_layer_"),
    _mark("HiDream", r"(?:double|single)_stream_blocks_0_"),
    _mark("AuraFlow", r"joint_transformer_blocks_0_|(?:double|single)_layers_0_(?:attn|mlp|mod)"),
    _mark("AuraFlow", r"single_transformer_blocks_0_ff_linear_"),
    _mark("FLUX.2", r"single_transformer_blocks_0_attn_to_qkv_mlp_proj|(?:double|single)_stream_modulation"),
    _mark("FLUX.2", r"transformer_blocks_0_ff_(?:context_)?linear_(?:in|out)"),
    _mark("FLUX.2", r"(?:double_blocks_0_(?:img|txt)_attn_(?:qkv|proj)|single_blocks_0_linear0)", 6144, 4096, 27648),
    _mark("HunyuanVideo or HunyuanImage", r"txt_in_individual_token_refiner_|context_embedder_token_refiner_"),
    _mark("HunyuanVideo or HunyuanImage", r"double_blocks_0_(?:img|txt)_(?:mlp_fc0|mod_linear|attn_[qkv]_)"),
    _mark("HunyuanVideo or HunyuanImage", r"double_blocks_0_(?:img|txt)_attn_(?:qkv|proj)", 3584, 2048),
    _mark("HunyuanVideo or HunyuanImage", r"single_blocks_0_modulation_linear"),
    _mark("HunyuanVideo or HunyuanImage", r"double_blocks_0_", number=19),
    _mark("HunyuanVideo or HunyuanImage", r"single_(?:transformer_)?blocks_0_", number=38),
    _mark("Flux", r"double_blocks_0_processor_|single_blocks_0_processor_"),
    _mark("Flux", r"double_blocks_0_(?:img|txt)_mod_lin|single_blocks_0_modulation_lin|(?:vector|guidance)_in_"),
    _mark("Flux", r"single_transformer_blocks_0_norm_linear|time_text_embed_guidance_embedder"),
    _mark("Flux or Chroma", r"double_blocks_0_|single_blocks_0_linear0|single_transformer_blocks_0_"),
    # two streams alone
    _mark("SD3", r"joint_blocks_0_"),
    _mark("Qwen-Image", r"transformer_blocks_0_(?:img|txt)_(?:mlp|mod)_"),
    _mark("Mochi", r"transformer_blocks_0_attn0_add_[qkv]_proj|blocks_0_attn_(?:qkv_x|qkv_y|proj_x|proj_y)"),
    _mark("SD3", r"transformer_blocks_0_(?:attn_|attn0_|ff_|ff_context_|norm0_(?:context_)?linear)", 1536, 2432),
    _mark("Qwen-Image", r"transformer_blocks_0_attn_(?:to|add|norm)_", number=20),
    _mark("Flux or Chroma", r"transformer_blocks_0_(?:attn_(?:to|add)_|ff_context_)", 3072),
    _mark("Flux, SD3 or Qwen-Image", r"transformer_blocks_0_(?:attn_(?:to|add)_|ff_context_)"),
    # one stream that attends to itself and to the prompt
    _mark("LTX-Video", r"transformer_blocks_0_(?:audio_|video_to_audio|audio_to_video)"),
    _mark("Sana", r"transformer_blocks_0_ff_conv_"),
    _mark("Sana", r"transformer_blocks_0_attn0_to_", 2240),
    _mark("PixArt", r"transformer_blocks_0_(?:attn0|ff)_", 1152),
    _mark("CogVideoX", r"transformer_blocks_0_(?:attn0|ff)_", 1920, 3072),
    _mark("LTX-Video", r"transformer_blocks_0_(?:attn0|ff)_", 2048, 4096),
    _mark("PixArt, LTX-Video, Sana or CogVideoX", r"transformer_blocks_0_(?:attn0|ff)_"),
    _mark("PixArt", r"blocks_0_(?:cross_attn_(?:q|kv)_linear|attn_qkv)"),
    _mark("HunyuanDiT", r"blocks_0_(?:attn0_(?:Wqkv|q_proj|kv_proj|out_proj)|skip_linear|default_modulation|ff_net)"),
    _mark("HunyuanDiT", r"blocks_0_attn0_to_", 1408),
    _mark("Anima or Cosmos", r"blocks_0_(?:(?:self|cross)_attn_(?:[qkv]|output)_proj|adaln_modulation)|llm_adapter_"),
    _mark("Wan", r"(?:vace_)?blocks_0_(?:(?:self|cross)_attn_(?:[qkvo]|norm_[qk]|[kv]_img)(?:_|$)|ffn_|"
                 r"attn0_(?:to|add|norm)_)"),
    _mark("Wan", r"text_embedding_0|time_projection_0|condition_embedder_(?:time_proj|text_embedder|image_embedder)"),
    _mark("Kandinsky 5", r"(?:visual|text)_transformer_blocks_0_"),
    # layers called layers
    _mark("Lumina 2", r"layers_0_attention_(?:qkv|out)|(?:noise|context)_refiner_0_attention_(?:qkv|out)", 2304),
    _mark("Lumina 2", r"(?:layers|noise_refiner|context_refiner)_0_(?:attn_|feed_forward_linear_)"),
    _mark("Z-Image", r"(?:layers|noise_refiner|context_refiner)_0_attention_(?:to_|norm_)"),
    _mark("Z-Image", r"(?:layers|noise_refiner|context_refiner)_0_(?:attention|feed_forward|adaLN_modulation)_", 3840),
    _mark("Lumina", r"layers_0_(?:attention_w[qkvo](?:_|$)|attn0_to_)"),
    _mark("Lumina or Z-Image", r"(?:layers|noise_refiner|context_refiner)_0_(?:attention|feed_forward)_"),
    # UNets whose layers have the names of SDXL's
    _mark("Kolors", r"encoder_hid_proj"),
    _mark("Kolors", r"add_embedding_linear_0", 5632),
    _mark("Kolors", r"(?:te0?|text_encoder)_(?:transformer_)?encoder_layers_0_(?:self_attention|mlp_dense)_"),
    _mark("Stable Video Diffusion", r"\w+_temporal_transformer_blocks_0_|\w+_time_(?:stack|mix_blocks)_0_"),
    _mark("Kandinsky 2", r"(?:down|up)_blocks_0_attentions_0_(?:add_[kv]_proj|to_[qkv])_"),
    _mark("a language model", r"layers_0_(?:self_attn|mlp)_"),
)
# How ss_base_model_version (kohya) and modelspec.architecture begin.
_STATED = (("chroma", "Chroma"), ("flux", "Flux"), ("hunyuan-video", "HunyuanVideo"), ("hunyuan_video", "HunyuanVideo"),
           ("hunyuan-image", "HunyuanImage"), ("hunyuan_image", "HunyuanImage"), ("hunyuan", "Hunyuan"),
           ("qwen", "Qwen-Image"), ("sd3", "SD3"), ("stable-diffusion-3", "SD3"), ("z-image", "Z-Image"),
           ("zimage", "Z-Image"), ("lumina", "Lumina 2"), ("anima", "Anima"), ("pixart", "PixArt"),
           ("ltx", "LTX-Video"), ("sana", "Sana"), ("cogvideo", "CogVideoX"), ("wan", "Wan"), ("sdxl", "SDXL"),
           ("stable-diffusion-xl", "SDXL"), ("sd_v2", "SD2"), ("stable-diffusion-v2", "SD2"), ("sd_v1", "SD1"),
           ("stable-diffusion-v1", "SD1"))
STABLE_DIFFUSION = ("SD1", "SD2", "SDXL")
_SAYS = ("ss_base_model_version", "modelspec.architecture")


def stated_family(metadata: Mapping[str, str]) -> str | None:
    """What a file says that it is made for; None where it says nothing that is known."""
    stated = (metadata.get(field, "").lower() for field in _SAYS)
    return next((family for text in stated for prefix, family in _STATED if text.startswith(prefix)), None)


def forms_of(sizes: Mapping[str, Sequence[int]]) -> list[Form]:
    """The different forms of keys, as the file writes them. sizes: shapes by key."""
    keys, shapes = [key.replace("\n", " ") for key in sizes], list(sizes.values())
    found: dict[str, Form] = {}
    for start in range(0, len(keys), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        names = _NUMBER.sub("0", "\n".join(keys[some])).split("\n")
        for key, name, shape in zip(keys[some], names, shapes[some]):
            if name not in found:
                if len(found) >= MOST_FORMS:
                    continue
                found[name] = Form(name, [], set())
            found[name].keys.append(key)
            found[name].sizes.update(shape)
    return list(found.values())


def _bare(forms: Sequence[Form]) -> list[Form]:
    """The same without prefixes of wrappers, with dots as underscores."""
    bare: dict[str, Form] = {}
    for form in forms:
        name = _PREFIX.sub("", form.name).replace(".", "_")
        before = bare.setdefault(name, Form(name, [], set()))
        before.keys.extend(form.keys)
        before.sizes.update(form.sizes)
    return list(bare.values())


def family_of(forms: Sequence[Form], metadata: Mapping[str, str]) -> str | None:
    """The family of a file with these forms; None for one of Stable Diffusion 1, 2 or XL, or where nothing tells.

    metadata: what the file says of itself, which decides between families of the same names.
    """
    bare = _bare(forms)
    found = next((mark.family for mark in _MARKS for form in bare if mark.is_in(form)), None)
    if found is None or " or " not in found:
        return found
    stated = stated_family(metadata)
    return found if stated in (None, *STABLE_DIFFUSION) else stated
