"""Small files of everything that people put among their LoRAs: real key names, small tensors, and what is said."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping

import torch

KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
OLD_DIFFUSERS = (".lora.down.weight", ".lora.up.weight")
XLABS = (".down.weight", ".up.weight")


def pairs(*layers: str, out: int = 8, inputs: int = 8, ends: tuple[str, str] = KOHYA, prefix: str = "",
          ) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 of each layer."""
    state = {}
    for layer in layers:
        state[prefix + layer + ends[0]], state[prefix + layer + ends[1]] = torch.ones(2, inputs), torch.ones(out, 2)
    return state


def whole(*keys: str, shape: tuple[int, ...] = (4, 4)) -> dict[str, torch.Tensor]:
    return {key: torch.ones(shape) for key in keys}


def lora_for(family: str) -> str:
    return f"a LoRA for {family}; it works with such models only, not with Stable Diffusion 1, 2 and XL"


_CONTROL = "put it into the ControlNet extension's models folder"
_CHECKPOINT = "a whole checkpoint; put it into the Stable-diffusion folder"
_ENCODER = "a whole text encoder; it is a part of a checkpoint, not a LoRA"
_UNET = "a whole UNet; it is a part of a checkpoint, not a LoRA"
_CLIP_VISION = ("a CLIP vision model; put it where the ControlNet extension looks for them "
                "(annotator/downloads/clip_vision)")
_UPSCALER = "an upscaler; put it into the ESRGAN folder, or that of its kind"
_EMBEDDING = "an embedding (textual inversion); put it into the embeddings folder"
_MOTION_LORA = ("a motion LoRA for AnimateDiff; it acts on AnimateDiff's motion modules only: use it with that "
                "extension")
_ANIMATED = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0."

# What is no LoRA: name → (tensors, sentence).
THINGS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "embedding of a WebUI": (whole("emb_params", shape=(2, 768)), _EMBEDDING),
    "embedding of SDXL": (whole("clip_l", shape=(2, 768)) | whole("clip_g", shape=(2, 1280)), _EMBEDDING),
    "embedding of OneTrainer": (whole("clip_l", "clip_g_out", shape=(2, 768)), _EMBEDDING),
    "embedding of diffusers": (whole("<cat-toy>", shape=(1, 768)), _EMBEDDING),
    "checkpoint": (whole("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight",
                         "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"), _CHECKPOINT),
    "checkpoint of SDXL": (whole("conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
                                 "model.diffusion_model.label_emb.0.0.weight"), _CHECKPOINT),
    "checkpoint's UNet in halves": (whole("model_ema.diffusion_modelinput_blocks00weight"), _CHECKPOINT),
    "UNet of diffusers": (whole("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight",
                                "mid_block.resnets.0.norm1.weight",
                                "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"), _UNET),
    "UNet of LDM": (whole("input_blocks.0.0.weight", "middle_block.1.proj_in.weight", "out.2.weight"), _UNET),
    "text encoder": (whole("text_model.encoder.layers.0.mlp.fc1.weight",
                           "text_model.embeddings.token_embedding.weight"), _ENCODER),
    "text encoder of transformers 5": (whole("encoder.layers.0.self_attn.q_proj.weight"), _ENCODER),
    "text encoder of OpenCLIP": (whole("transformer.resblocks.0.attn.in_proj_weight"), _ENCODER),
    "T5": (whole("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"), _ENCODER),
    "VAE": (whole("encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight", "quant_conv.weight"),
            "a VAE; put it into the VAE folder"),
    "VAE of diffusers": (whole("decoder.mid_block.resnets.0.conv1.weight",
                               "encoder.down_blocks.0.resnets.0.conv1.weight"), "a VAE; put it into the VAE folder"),
    "tiny VAE": (whole("decoder.layers.0.weight", "encoder.layers.1.conv.0.weight"),
                 "a VAE; put it into the VAE folder"),
    "ControlNet": (whole("control_model.input_blocks.0.0.weight", "control_model.zero_convs.0.0.weight"),
                   f"a ControlNet; {_CONTROL}"),
    "ControlNet without its prefix": (whole("input_hint_block.0.weight", "zero_convs.0.0.weight",
                                            "input_blocks.0.0.weight"), f"a ControlNet; {_CONTROL}"),
    "ControlNet of diffusers": (whole("controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight",
                                      "down_blocks.0.resnets.0.conv1.weight"), f"a ControlNet; {_CONTROL}"),
    "ControlNet of Flux": (whole("controlnet_x_embedder.weight", "transformer_blocks.0.attn.to_q.weight"),
                           f"a ControlNet; {_CONTROL}"),
    "control-lora": (whole("lora_controlnet", shape=(1,)) | whole("input_blocks.1.0.in_layers.2.down",
                     "input_blocks.1.0.in_layers.2.up"), f"a control-lora, which is a ControlNet; {_CONTROL}"),
    "control-lora without its mark": (whole("input_blocks.1.0.in_layers.2.down", "input_blocks.1.0.in_layers.2.up",
                                            "input_hint_block.0.weight"),
                                      f"a control-lora, which is a ControlNet; {_CONTROL}"),
    "LLLite": (whole("lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight",
                     "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.conditioning1.0.weight"),
               f"a ControlNet-LLLite; {_CONTROL}"),
    "IP-Adapter": (whole("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"), f"an IP-Adapter; {_CONTROL}"),
    "IP-Adapter FaceID": (whole("image_proj.proj.0.weight", "ip_adapter.0.to_q_lora.down.weight",
                                "ip_adapter.1.to_k_ip.weight"), f"an IP-Adapter FaceID; {_CONTROL}"),
    "LoRA of an IP-Adapter FaceID": (
        whole("0.to_q_lora.down.weight", "0.to_q_lora.up.weight", "31.to_out_lora.up.weight"),
        "the LoRA of an IP-Adapter FaceID, with numbers in place of layer names; take the file whose name ends in "
        "_lora.safetensors from where the IP-Adapter comes from"),
    "T2I-Adapter": (whole("body.0.block1.weight", "body.0.block2.weight", "conv_in.weight"),
                    f"a T2I-Adapter; {_CONTROL}"),
    "T2I-Adapter of diffusers": (whole("adapter.body.0.resnets.0.block1.weight", "adapter.conv_in.weight"),
                                 f"a T2I-Adapter; {_CONTROL}"),
    "T2I style adapter": (whole("transformer_layes.0.attn.in_proj_weight", "style_embedding"),
                          f"a T2I-Adapter; {_CONTROL}"),
    "motion module": (whole(f"{_ANIMATED}to_q.weight", f"{_ANIMATED}pos_encoder.pe"),
                      "an AnimateDiff motion module; put it into the AnimateDiff extension's model folder"),
    "motion LoRA": (whole(f"{_ANIMATED}processor.to_q_lora.down.weight", f"{_ANIMATED}processor.to_q_lora.up.weight"),
                    _MOTION_LORA),
    "motion LoRA of diffusers": (
        pairs("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q", ends=PEFT),
        _MOTION_LORA),
    "ESRGAN": (whole("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), _UPSCALER),
    "ESRGAN of BasicSR": (whole("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_up1.weight"), _UPSCALER),
    "ESRGAN with a trunk": (whole("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"), _UPSCALER),
    "SwinIR": (whole("conv_first.weight", "layers.0.residual_group.blocks.0.attn.qkv.weight"), _UPSCALER),
    "CLIP vision": (whole("vision_model.encoder.layers.0.mlp.fc1.weight", "visual_projection.weight"), _CLIP_VISION),
    "whole Flux model": (whole("double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_mod.lin.weight"),
                         "a whole model (Flux), not a LoRA; it belongs among the checkpoints of a program that runs "
                         "such models"),
}

# LoRAs for other models: name → (tensors, family).
ATTENTION = "transformer_blocks.0.attn."
FAMILIES: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "Flux of kohya": (pairs("lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_double_blocks_0_img_mod_lin",
                            "lora_unet_single_blocks_0_linear1", "lora_te1_text_model_encoder_layers_0_mlp_fc1",
                            inputs=3072), "Flux"),
    "Flux of BFL": (pairs("double_blocks.0.img_attn.qkv", "single_blocks.0.modulation.lin", "img_in", ends=PEFT),
                    "Flux"),
    "Flux of ComfyUI": (pairs("double_blocks.0.txt_mod.lin", "single_blocks.37.linear2", prefix="diffusion_model."),
                        "Flux"),
    "Flux of diffusers": (pairs(f"{ATTENTION}to_q", f"{ATTENTION}add_q_proj", "single_transformer_blocks.0.norm.linear",
                                prefix="transformer.", ends=PEFT), "Flux"),
    "Flux or Chroma, attention alone": (pairs(f"{ATTENTION}to_q", "single_transformer_blocks.37.attn.to_q",
                                              prefix="transformer.", ends=PEFT), "Flux or Chroma"),
    "Flux of PEFT": (pairs("single_transformer_blocks.0.norm.linear", prefix="base_model.model.", ends=PEFT), "Flux"),
    "Flux of OneTrainer": (pairs("lora_transformer_single_transformer_blocks_0_norm_linear",
                                 "lora_transformer_transformer_blocks_0_attn_add_k_proj"), "Flux"),
    "Flux of xlabs": (pairs("double_blocks.0.processor.qkv_lora1", "single_blocks.0.processor.proj_lora", ends=XLABS),
                      "Flux"),
    "Flux, double blocks alone": (pairs(f"{ATTENTION}to_q", inputs=3072, out=3072, prefix="transformer."),
                                  "Flux or Chroma"),
    "Flux Kontext of musubi": (pairs("lora_unet_double_blocks_18_img_attn_proj", inputs=3072, out=3072),
                               "Flux or Chroma"),
    "Flux as LoKr": ({"lora_unet_double_blocks_0_img_mod_lin.lokr_w1": torch.ones(4, 4),
                      "lora_unet_double_blocks_0_img_mod_lin.lokr_w2": torch.ones(4, 4)}, "Flux"),
    "FLUX.2": (pairs("double_blocks.0.img_attn.qkv", inputs=6144, prefix="diffusion_model."), "FLUX.2"),
    "FLUX.2 of diffusers": (pairs("single_transformer_blocks.0.attn.to_qkv_mlp_proj", prefix="transformer.", ends=PEFT),
                            "FLUX.2"),
    "Chroma": (pairs("lora_unet_distilled_guidance_layer_in_proj", "lora_unet_double_blocks_0_img_attn_qkv"), "Chroma"),
    "HunyuanVideo of musubi": (pairs("lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_double_blocks_0_img_mlp_fc1"),
                               "HunyuanVideo or HunyuanImage"),
    "HunyuanVideo, attention alone": (pairs("lora_unet_double_blocks_19_img_attn_qkv", inputs=3072),
                                      "HunyuanVideo or HunyuanImage"),
    "HunyuanVideo of diffusers": (pairs("single_transformer_blocks.39.attn.to_q", f"{ATTENTION}to_q",
                                        prefix="transformer.", ends=PEFT), "HunyuanVideo or HunyuanImage"),
    "HunyuanImage": (pairs("lora_unet_double_blocks_0_img_attn_qkv", inputs=3584), "HunyuanVideo or HunyuanImage"),
    "HunyuanDiT of kohya": (pairs("lora_unet_blocks_0_attn1_Wqkv", "lora_unet_blocks_0_attn2_kv_proj"), "HunyuanDiT"),
    "HunyuanDiT of diffusers": (pairs("blocks.0.attn1.to_q", "blocks.0.attn2.to_k", inputs=1408, out=1408,
                                      prefix="transformer.", ends=PEFT), "HunyuanDiT"),
    "SD3 of kohya": (pairs("lora_unet_joint_blocks_0_x_block_attn_qkv",
                           "lora_unet_joint_blocks_0_context_block_mlp_fc1",
                           "lora_te2_text_model_encoder_layers_0_mlp_fc1",
                           "lora_te3_encoder_block_0_layer_0_SelfAttention_q"), "SD3"),
    "SD3 of diffusers": (pairs(f"{ATTENTION}to_q", f"{ATTENTION}add_k_proj", inputs=1536, out=1536,
                               prefix="transformer.", ends=PEFT), "SD3"),
    "SD3.5 of OneTrainer": (pairs("lora_transformer_transformer_blocks_0_attn_to_q", inputs=2432, out=2432), "SD3"),
    "Wan of diffusers": (pairs("blocks.0.attn1.to_q", "blocks.0.ffn.net.0.proj", inputs=5120, out=5120,
                               prefix="transformer.", ends=PEFT), "Wan"),
    "Wan of musubi": (pairs("lora_unet_blocks_0_self_attn_q", "lora_unet_blocks_0_cross_attn_k_img",
                            "lora_unet_blocks_0_ffn_0"), "Wan"),
    "Wan of ComfyUI": (pairs("blocks.0.self_attn.o", "blocks.0.ffn.2", prefix="diffusion_model.", ends=PEFT)
                       | {"diffusion_model.blocks.0.self_attn.norm_q.diff": torch.ones(8)}, "Wan"),
    "Qwen-Image of diffusers": (pairs(f"{ATTENTION}to_q", "transformer_blocks.0.img_mlp.net.0.proj",
                                      prefix="transformer.", ends=PEFT), "Qwen-Image"),
    "Qwen-Image of musubi": (pairs("lora_unet_transformer_blocks_0_img_mlp_net_2"), "Qwen-Image"),
    "Qwen-Image, attention alone": (pairs("transformer_blocks.59.attn.add_v_proj", inputs=3072, out=3072,
                                          prefix="diffusion_model."), "Qwen-Image"),
    "Z-Image of diffusers": (pairs("layers.0.attention.to_q", "layers.0.feed_forward.w1", prefix="diffusion_model.",
                                   ends=PEFT), "Z-Image"),
    "Z-Image of ComfyUI": (pairs("layers.0.attention.qkv", inputs=3840, out=11520, prefix="diffusion_model."),
                           "Z-Image"),
    "Z-Image of musubi": (pairs("lora_unet_layers_0_attention_to_out_0"), "Z-Image"),
    "Lumina of kohya": (pairs("lora_unet_layers_0_attention_qkv", inputs=2304, out=3840), "Lumina 2"),
    "Lumina of diffusers": (pairs("layers.0.attn.to_q", "noise_refiner.0.attn.to_k", prefix="transformer.", ends=PEFT),
                            "Lumina 2"),
    "Lumina Next": (pairs("layers.0.attention.wq", "layers.0.attention.wk_y", ends=PEFT), "Lumina"),
    "PixArt of diffusers": (pairs("transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn2.to_k", inputs=1152,
                                  out=1152, prefix="base_model.model.", ends=PEFT), "PixArt"),
    "PixArt of OneTrainer": (pairs("lora_transformer_transformer_blocks_0_attn1_to_q", inputs=1152, out=1152),
                             "PixArt"),
    "PixArt of its own code": (pairs("blocks.0.cross_attn.kv_linear", "blocks.0.attn.qkv"), "PixArt"),
    "Stable Cascade of OneTrainer": (pairs("lora_prior_unet_down_blocks_0_0_channelwise_0",
                                           "lora_prior_te_text_model_encoder_layers_0_mlp_fc1"), "Stable Cascade"),
    "Stable Cascade of kohya": (pairs("lora_unet_down_blocks_1_2_attention_attn_out_proj",
                                      "lora_unet_down_blocks_0_1_channelwise_0"), "Stable Cascade"),
    "AuraFlow of diffusers": (pairs("joint_transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.ff.linear_1",
                                    prefix="transformer.", ends=PEFT), "AuraFlow"),
    "AuraFlow of its own code": (pairs("double_layers.0.attn.w1q", prefix="diffusion_model."), "AuraFlow"),
    "HiDream": (pairs("double_stream_blocks.0.block.attn1.to_q", prefix="diffusion_model.", ends=PEFT), "HiDream"),
    "Sana": (pairs("transformer_blocks.0.attn1.to_q", inputs=2240, out=2240, prefix="transformer.", ends=PEFT), "Sana"),
    "LTX-Video": (pairs("transformer_blocks.0.attn1.to_q", "transformer_blocks.0.ff.net.0.proj", inputs=2048, out=2048,
                        prefix="diffusion_model.", ends=PEFT), "LTX-Video"),
    "CogVideoX": (pairs("transformer_blocks.0.attn1.to_q", inputs=1920, out=1920, prefix="transformer.", ends=PEFT),
                  "CogVideoX"),
    "Mochi": (pairs("transformer_blocks.0.attn1.add_q_proj", prefix="transformer.", ends=PEFT), "Mochi"),
    "Anima": (pairs("lora_unet_blocks_0_self_attn_q_proj", "lora_unet_blocks_0_mlp_layer1"), "Anima or Cosmos"),
    "Kolors with its text": (pairs("unet.encoder_hid_proj", "unet.down_blocks.1.attentions.0.proj_in", ends=PEFT),
                             "Kolors"),
    "Kolors with its ChatGLM": (pairs("lora_te_encoder_layers_0_self_attention_query_key_value",
                                      "lora_unet_down_blocks_1_attentions_0_proj_in"), "Kolors"),
    "Stable Video Diffusion": (pairs("unet.down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q",
                                     ends=OLD_DIFFUSERS), "Stable Video Diffusion"),
}

# PEFT's and LyCORIS' ways that are not mixed: a key → what it is.
LAYER = "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
TUNERS = {
    f"{LAYER}.lora_E": "AdaLoRA of PEFT", f"{LAYER}.vera_lambda_b": "VeRA", f"{LAYER}.oft_R.weight": "OFT of PEFT",
    f"{LAYER}.boft_R": "BOFT of PEFT", f"{LAYER}.fourierft_spectrum": "FourierFT of PEFT",
    f"{LAYER}.hra_u": "HRA of PEFT",
    f"{LAYER}.miss_block": "MiSS of PEFT", f"{LAYER}.shira_weight": "SHiRA of PEFT",
    f"{LAYER}.randlora_lambda": "RandLora of PEFT", f"{LAYER}.c3a_kernel": "C³A of PEFT",
    f"{LAYER}.vblora_logits_A": "VB-LoRA of PEFT", f"{LAYER}.waveft_spectrum": "WaveFT of PEFT",
    f"{LAYER}.road_theta": "RoAd of PEFT", f"{LAYER}.delora_A": "DeLoRA of PEFT",
}

AGAIN = "signed in where the site asks for it"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
# What is no file of tensors: name → (bytes, sentence).
BYTES = {
    "zero bytes": (b"", r"an empty file \(zero bytes\)"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "a page": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>" * 9, f"an HTML page.*{AGAIN}"),
    "a page with a mark": (b"\xef\xbb\xbf\n  <html lang='en'><body>", f"an HTML page.*{AGAIN}"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', f"an HTML page.*{AGAIN}"),
    "an LFS pointer": (LFS, "a Git LFS pointer.*git lfs pull"),
    "JSON": (b'{"error": "Unauthorized", "message": "You must be logged in"}', f"JSON, .*{AGAIN}"),
    "a text": (b"Invalid username or password.", "a text, not a file of tensors"),
    "gzip": (b"\x1f\x8b\x08\x00\0\0\0\0\0\0" * 9, "a gzip archive; unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(90), "a 7z archive; unpack it"),
    "RAR": (b"Rar!\x1a\x07\x01\x00" + bytes(90), "a RAR archive; unpack it"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(90), "a GGUF model"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(90), "a picture"),
}


def zip_of_others(path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("my lora/kim.safetensors", "x" * 99)
        archive.writestr("my lora/readme.txt", "x")


def json_config(path) -> None:
    path.write_text(json.dumps({"peft_type": "LORA", "r": 8}), encoding="utf-8")


def nested(tensors: Mapping[str, torch.Tensor]) -> dict[str, object]:
    """The same with the first name of each key as a table of its own, as IP-Adapters are pickled."""
    tables: dict[str, object] = {}
    for key, tensor in tensors.items():
        first, _, rest = key.partition(".")
        tables.setdefault(first, {})[rest] = tensor
    return tables
