"""Files of tensors that are no LoRA, or one for what is not mixed here: what a file is and where it belongs, in one
sentence, from the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .families import family_of, forms_of

KNOWN = "LoRA, LoCon, LoHa, LoKr, DoRA, IA3, OFT, BOFT, GLoRA, full and norm differences"

_LIKE_SD = re.compile(r"(?:down|up)_blocks[._]\d+[._](?:attentions|resnets|downsamplers|upsamplers)[._]|"
                      r"mid_block[._](?:attentions|resnets)[._]|middle_block[._][012][._]|"
                      r"(?:input|output)_blocks[._]\d+[._][012][._]")
_ADAPTED = re.compile(r"lora|hada_w|lokr_|oft_|boft_|ia3_|on_input|\.(?:diff|diff_b|w_norm|b_norm|alpha|scale)$|"
                      r"\.[ab][12]\.weight$", re.M)
_STRANGE = ("motion_modules", "lllite", "lora_controlnet", "temporal_transformer", "time_stack", "time_mix_blocks",
            "add_k_proj", "add_embedding", "add.embedding", "encoder_hid_proj", "self_attention", "ip_adapter",
            "image_proj")
"""what no proper LoRA has beside layers of such a UNet, and what may be a sign of another family"""

_CONTROL = "put it into the ControlNet extension's models folder"
_ANIMATE = "AnimateDiff's motion modules"
# Forms of names, numbers 0, that tell of a file whatever else is in it.
_MARKS = (
    (r"lora_controlnet$|(?:input_blocks|middle_block|input_hint_block|zero_convs|time_embed|label_emb|middle_block_out)"
     r"\.[\w.]+\.(?:down|up)$", f"a control-lora, which is a ControlNet; {_CONTROL}"),
    (r"lllite_", f"a ControlNet-LLLite; {_CONTROL}"),
    (r"(?:image_proj|ip_adapter)\.(?:.*lora)", f"an IP-Adapter FaceID; {_CONTROL}"),
    (r"0\.to_(?:q|k|v|out)_lora\.", "the LoRA of an IP-Adapter FaceID, with numbers in place of layer names; take the "
     "file whose name ends in _lora.safetensors from where the IP-Adapter comes from"),
    (r"(?:image_proj|ip_adapter|adapter_modules|image_proj_model)\.|0\.to_[kv]_ip\.", f"an IP-Adapter; {_CONTROL}"),
    (r".*motion_modules[._].*(?:lora|\.alpha$)", f"a motion LoRA for AnimateDiff; it acts on {_ANIMATE} only: use it "
     "with that extension"),
    (r".*motion_modules\.", "an AnimateDiff motion module; put it into the AnimateDiff extension's model folder"),
    (r"control_model\.|zero_convs\.|input_hint_block\.|controlnet_|(?:module\.)?pos_embed_input\.",
     f"a ControlNet; {_CONTROL}"),
    (r"(?:adapter\.)?body\.0\.(?:block0|in_conv|resnets|down_opt)\b|(?:adapter\.)?transformer_layes\.",
     f"a T2I-Adapter; {_CONTROL}"),
)
# The same, of files without any LoRA in them.
_WHOLE = (
    (r"model\.diffusion_model\.|cond_stage_model\.|first_stage_model\.|conditioner\.embedders\.|model_ema\.",
     "a whole checkpoint; put it into the Stable-diffusion folder"),
    (r"(?:input|output)_blocks\.0\.0\.|middle_block\.0\.|(?:down|up)_blocks\.0\.(?:resnets|attentions)\.",
     "a whole UNet; it is a part of a checkpoint, not a LoRA"),
    (r"(?:vae\.)?(?:encoder|decoder)\.(?:(?:down|up|mid|down_blocks|up_blocks|mid_block)\.|"
     r"layers\.0\.(?:conv\.|weight))",
     "a VAE; put it into the VAE folder"),
    (r"(?:vision_model|visual)\.", "a CLIP vision model; put it where the ControlNet extension looks for "
     "them (annotator/downloads/clip_vision)"),
    (r"(?:[\w.]+\.)?(?:text_model\.(?:encoder|embeddings)\.|resblocks\.0\.|encoder\.block\.0\.layer\.0\.|"
     r"encoder\.layers\.0\.self_attn\.)|shared\.weight$",
     "a whole text encoder; it is a part of a checkpoint, not a LoRA"),
    (r"(?:params(?:_ema)?\.)?(?:conv_first\.|body\.0\.rdb0\.|(?:body\.)?RRDB_trunk\.|model\.0\.(?:weight|sub\.)|"
     r"conv_up0\.|upconv0\.|layers\.0\.residual_group\.)|(?:params(?:_ema)?\.)body\.0\.",
     "an upscaler; put it into the ESRGAN folder, or that of its kind"),
    (r"(?:params(?:_ema)?\.)?(?:stylegan_decoder|generator\.blocks)\.", "a model that restores faces; it is no LoRA"),
)
_TUNERS = (
    ("boft_R", "BOFT of PEFT"), ("oft_R", "OFT of PEFT"), ("lora_E", "AdaLoRA of PEFT"), ("pvera_lambda", "PVeRA"),
    ("vera_lambda", "VeRA"), ("randlora_", "RandLora of PEFT"), ("fourierft_", "FourierFT of PEFT"),
    ("waveft_", "WaveFT of PEFT"), ("vblora_", "VB-LoRA of PEFT"), ("hra_u", "HRA of PEFT"), ("c3a_", "C³A of PEFT"),
    ("road_", "RoAd of PEFT"), ("shira_", "SHiRA of PEFT"), ("miss_block", "MiSS of PEFT"), ("bone_", "Bone of PEFT"),
    ("delora_", "DeLoRA of PEFT"), ("gralora_", "GraLoRA of PEFT"), ("ln_tuning_", "LayerNorm tuning of PEFT"),
    ("hira_", "HiRA of PEFT"), ("xlora_", "X-LoRA of PEFT"), ("poly_", "Polytropon of PEFT"),
    ("prompt_embeddings", "prompt tuning of PEFT"), ("trainable_tokens_", "trained tokens of PEFT"),
    ("bias_indices", "LoRA with a sparse rest (LyCORIS extract)"), ("lora_down.bias", "LoRA with biases within"),
    ("lora_A.bias", "LoRA with biases within"), ("lokr_t1", "LoKr with a core in its first half"),
    ("bm.weight", "GLoRA with Tucker decomposition"),
)
EMBEDDING = "an embedding (textual inversion); put it into the embeddings folder"
HYPERNETWORK = "a hypernetwork; put it into the hypernetworks folder"
_EMBEDDINGS = {"emb_params", *(f"{encoder}{end}" for encoder in ("clip_l", "clip_g", "t5xxl", "t5")
                               for end in ("", "_out"))}
_TOKEN_WIDTHS = {768, 1024, 1280}


def name_foreign(sizes: Mapping[str, Sequence[int]], metadata: Mapping[str, str]) -> str | None:
    """What a file is and where it belongs; None for a LoRA for Stable Diffusion 1, 2 or XL, and where nothing tells.

    sizes: shapes of its tensors by key; metadata: what the file says of itself.
    """
    text = "\n".join(sizes)
    adapted = _ADAPTED.search(text) is not None
    if adapted and _LIKE_SD.search(text) and not any(mark in text for mark in _STRANGE):
        return None
    del text  # of many long keys, which are copied below
    if _is_embedding(sizes):
        return EMBEDDING
    forms = forms_of(sizes)
    told = next((sentence for mark, sentence in _COMPILED for form in forms if mark.match(form.name)), None)
    if told is None and not adapted:
        told = next((sentence for mark, sentence in _COMPILED_WHOLE for form in forms if mark.match(form.name)), None)
    if told is not None:
        return told
    family = family_of(forms, metadata)
    if family is None:
        return None
    if family == "a language model":
        return "a LoRA for a language model; it is for no picture" if adapted else "a language model, not a LoRA"
    if adapted:
        return f"a LoRA for {family}; it works with such models only, not with Stable Diffusion 1, 2 and XL"
    return f"a whole model ({family}), not a LoRA; it belongs among the checkpoints of a program that runs such models"


def name_tuner(keys: Sequence[str]) -> str | None:
    """How the LoRA was made whose keys these are, where that is not supported; None where nothing tells."""
    text = "\n".join(keys)
    name = next((name for mark, name in _TUNERS if mark in text), None)
    return name and f"{name} is not supported; supported are {KNOWN}"


def _is_embedding(sizes: Mapping[str, Sequence[int]]) -> bool:
    """By the names that A1111, ComfyUI and OneTrainer give its vectors, or one vector or more under a word alone, as
    diffusers keeps them."""
    if sizes and (sizes.keys() <= _EMBEDDINGS or any(key.startswith("string_to_param") for key in sizes)):
        return True
    return 0 < len(sizes) <= 2 and all("." not in key and 0 < len(shape) <= 2 and shape[-1] in _TOKEN_WIDTHS
                                       for key, shape in sizes.items())


_COMPILED = [(re.compile(mark), sentence) for mark, sentence in _MARKS]
_COMPILED_WHOLE = [(re.compile(mark), sentence) for mark, sentence in _WHOLE]
