"""Writes toy checkpoints and LoRAs with random weights that the WebUI loads like real ones.

Run it with the WebUI's own python, for it builds the WebUI's own UNet and autoencoder classes:

    python tiny_checkpoints.py --webui PATH --out MODELS_DIR [--size tiny|sd15]

Nothing is downloaded: the tokenizer's vocabulary comes from the installed open_clip package, and the
configuration beside each checkpoint names a folder in MODELS_DIR for it. Pictures are noise, but they
depend on prompt, seed and LoRAs as those of a real model do.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from tiny_variants import inpainting_xl, pix2pix, refiner, v_prediction
from torch import nn

OPEN_CLIP_CONFIG = Path(__file__).resolve().parent / "probe" / "open_clip_configs" / "sciart-tiny-bigG.json"
VOCABULARY = 49408

Weights = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--webui", type=Path, required=True, help="folder of the WebUI")
    parser.add_argument("--out", type=Path, required=True, help="models folder to write")
    parser.add_argument("--size", choices=["tiny", "sd15"], default="tiny")
    options = parser.parse_args()
    use_classes_of(options.webui.expanduser().resolve())
    out = options.out.expanduser().resolve()
    for folder in ("Stable-diffusion", "Lora"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    if options.size == "tiny":
        write_tiny(out)
    else:
        write_sd15(out)


def write_tiny(out: Path) -> None:
    """Two SD1 checkpoints, two SD2, two SDXL, further kinds of each, and three LoRAs for each family."""
    text = write_text_encoder(out / "text-encoder-tiny", width=64, layers=3, heads=4)
    sd1 = sd1_config(text, channels=32, context=64)
    network = write_checkpoint(out, "tiny-sd1", sd1, build_sd1(sd1, text), seed=1)
    write_checkpoint(out, "tiny-sd1-b", sd1, build_sd1(sd1, text), seed=2)
    inpainting = sd1_config(text, channels=32, context=64, inpainting=True)
    write_checkpoint(out, "tiny-sd1-inpainting", inpainting, build_sd1(inpainting, text), seed=3)
    xl = sdxl_config(text)
    network_xl = write_checkpoint(out, "tiny-sdxl", xl, build_sdxl(xl, text), seed=4)
    sd2 = sd2_config(text)
    network_2 = write_checkpoint(out, "tiny-sd2", sd2, build_sd2(sd2), seed=6)
    write_variants(out, text, sd1_config(text, channels=32, context=64), sd2, xl)
    loras = {
        "child": (4, 2.0, False),
        "watercolor": (8, 8.0, False),
        "science": (6, 3.0, True),
    }
    for seed, (name, (rank, alpha, convolutions)) in enumerate(loras.items(), start=11):
        write_lora(
            out,
            name,
            sd1_lora_layers(network, convolutions),
            rank,
            alpha,
            seed,
            "sd_v1",
        )
        write_lora(out, f"{name}-v2", sd2_lora_layers(network_2, convolutions), rank, alpha, seed + 20, "sd_v2")
        layers = sdxl_lora_layers(network_xl, convolutions)
        write_lora(out, f"{name}-xl", layers, rank, alpha, seed + 10, "sdxl_base_v1-0")


def write_variants(out: Path, text: Path, sd1: dict, sd2: dict, xl: dict) -> None:
    """InstructPix2Pix, a v-prediction SD2; another SDXL, its refiner and its inpainting model."""
    edit, velocity = pix2pix(sd1), v_prediction(sd2)
    write_checkpoint(out, "tiny-pix2pix", edit, build_sd1(edit, text), seed=7)
    write_checkpoint(out, "tiny-sd2-v", velocity, build_sd2(velocity), seed=8)
    xls = {"tiny-sdxl-b": xl, "tiny-sdxl-refiner": refiner(xl), "tiny-sdxl-inpainting": inpainting_xl(xl)}
    for seed, (name, config) in enumerate(xls.items(), start=40):
        write_checkpoint(out, name, config, build_sdxl(config, text), seed)


def write_sd15(out: Path) -> None:
    """A UNet and a text encoder of true SD 1.5 size with a small autoencoder, and three rank-32 LoRAs."""
    text = write_text_encoder(out / "text-encoder-sd15", width=768, layers=12, heads=12)
    config = sd1_config(text, channels=320, context=768)
    network = build_sd1(config, text)
    write_checkpoint(out, "sd15-random", config, network, seed=5, dtype=torch.float16)
    for seed, name in enumerate(("bench-a", "bench-b", "bench-c"), start=31):
        write_lora(
            out,
            name,
            sd1_lora_layers(network, convolutions=False),
            32,
            16.0,
            seed,
            "sd_v1",
        )


# The WebUI's classes


def use_classes_of(webui: Path) -> None:
    """Makes `ldm` and `sgm` importable, without the parts of `sgm` that only training needs."""
    repositories = webui / "repositories"
    sys.path[:0] = [
        str(repositories / name) for name in ("stable-diffusion-stability-ai", "generative-models")
    ]
    data = types.ModuleType("sgm.data")
    data.StableDataModuleFromConfig = None
    losses = types.ModuleType("taming.modules.losses.lpips")
    losses.LPIPS = None
    sys.modules.update({"sgm.data": data, "taming.modules.losses.lpips": losses})


def build_sd1(config: dict, text: Path) -> nn.ModuleDict:
    """Modules named as in an SD1 checkpoint."""
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    params = config["model"]["params"]
    return nn.ModuleDict(
        {
            "model": nn.ModuleDict({"diffusion_model": UNetModel(**params["unet_config"]["params"])}),
            "first_stage_model": AutoencoderKL(**params["first_stage_config"]["params"]),
            "cond_stage_model": nn.ModuleDict({"transformer": build_text_encoder(text)}),
        }
    )


def build_sd2(config: dict) -> nn.ModuleDict:
    """Modules named as in an SD2 checkpoint."""
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    params = config["model"]["params"]
    return nn.ModuleDict(
        {
            "model": nn.ModuleDict({"diffusion_model": UNetModel(**params["unet_config"]["params"])}),
            "first_stage_model": AutoencoderKL(**params["first_stage_config"]["params"]),
            "cond_stage_model": nn.ModuleDict({"model": build_open_clip()}),
        }
    )


def build_sdxl(config: dict, text: Path) -> nn.ModuleDict:
    """Modules named as in an SDXL checkpoint."""
    from sgm.models.autoencoder import AutoencoderKL
    from sgm.modules.diffusionmodules.openaimodel import UNetModel

    params = config["model"]["params"]
    embedders = [
        nn.ModuleDict({"model": build_open_clip()} if "OpenCLIP" in embedder["target"] else
                      {"transformer": build_text_encoder(text)})
        for embedder in params["conditioner_config"]["params"]["emb_models"]
        if embedder["input_key"] == "txt"
    ]
    unet_params = {
        **params["network_config"]["params"],
        "spatial_transformer_attn_type": "softmax",
    }
    return nn.ModuleDict(
        {
            "model": nn.ModuleDict({"diffusion_model": UNetModel(**unet_params)}),
            "first_stage_model": AutoencoderKL(**params["first_stage_config"]["params"]),
            "conditioner": nn.ModuleDict({"embedders": nn.ModuleList(embedders)}),
        }
    )


def build_open_clip() -> nn.Module:
    from open_clip.model import CLIP

    model = CLIP(**json.loads(OPEN_CLIP_CONFIG.read_text(encoding="utf-8")))
    del model.visual
    return model


def build_text_encoder(folder: Path) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig.from_pretrained(folder))


# Configurations


def sd1_config(text: Path, channels: int, context: int, inpainting: bool = False) -> dict:
    """SD1's architecture at the given UNet width, with a small autoencoder."""
    unet = {
        "image_size": 32,
        "in_channels": 9 if inpainting else 4,
        "out_channels": 4,
        "model_channels": channels,
        "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4, 4],
        "num_heads": 8,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": context,
        "use_checkpoint": False,
        "legacy": False,
    }
    params = {
        "linear_start": 0.00085,
        "linear_end": 0.0120,
        "num_timesteps_cond": 1,
        "timesteps": 1000,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "cond_stage_trainable": False,
        "conditioning_key": "hybrid" if inpainting else "crossattn",
        "scale_factor": 0.18215,
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": unet,
        },
        "first_stage_config": autoencoder_config("ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": str(text)},
        },
    }
    kind = "LatentInpaintDiffusion" if inpainting else "LatentDiffusion"
    if inpainting:
        params["finetune_keys"] = None
    return {"model": {"target": f"ldm.models.diffusion.ddpm.{kind}", "params": params}}


def sd2_config(text: Path) -> dict:
    """SD2's architecture at toy size: an OpenCLIP text encoder, linear projections around the transformers."""
    config = sd1_config(text, channels=32, context=64)
    params = config["model"]["params"]
    unet = params["unet_config"]["params"]
    del unet["num_heads"]
    unet.update(num_head_channels=16, use_linear_in_transformer=True)
    params["cond_stage_config"] = {
        "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
        "params": {"arch": OPEN_CLIP_CONFIG.stem, "version": None, "freeze": True, "layer": "penultimate"},
    }
    return config


def sdxl_config(text: Path) -> dict:
    """SDXL's architecture at toy size: two text encoders, a size embedding, transformers of depth 2 and 3."""
    encoders = "sgm.modules.encoders.modules"
    diffusion = "sgm.modules.diffusionmodules"
    sizes = ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
    embedders = [
        {
            "is_trainable": False,
            "input_key": "txt",
            "target": f"{encoders}.FrozenCLIPEmbedder",
            "params": {"version": str(text), "layer": "hidden", "layer_idx": 2},
        },
        {
            "is_trainable": False,
            "input_key": "txt",
            "target": f"{encoders}.FrozenOpenCLIPEmbedder2",
            "params": {
                "arch": OPEN_CLIP_CONFIG.stem,
                "version": None,
                "freeze": True,
                "layer": "penultimate",
                "always_return_pooled": True,
                "legacy": False,
            },
        },
    ]
    embedders += [
        {
            "is_trainable": False,
            "input_key": key,
            "target": f"{encoders}.ConcatTimestepEmbedderND",
            "params": {"outdim": 256},
        }
        for key in sizes
    ]
    network = {
        "adm_in_channels": 64 + 2 * 256 * len(sizes),
        "num_classes": "sequential",
        "use_checkpoint": False,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "attention_resolutions": [4, 2],
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4],
        "num_head_channels": 16,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": [1, 2, 3],
        "context_dim": 128,
        "spatial_transformer_attn_type": "softmax-xformers",
        "legacy": False,
    }
    denoiser = {
        "num_idx": 1000,
        "weighting_config": {"target": f"{diffusion}.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{diffusion}.denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": f"{diffusion}.discretizer.LegacyDDPMDiscretization"},
    }
    params = {
        "scale_factor": 0.13025,
        "disable_first_stage_autocast": True,
        "denoiser_config": {
            "target": f"{diffusion}.denoiser.DiscreteDenoiser",
            "params": denoiser,
        },
        "network_config": {
            "target": f"{diffusion}.openaimodel.UNetModel",
            "params": network,
        },
        "conditioner_config": {
            "target": "sgm.modules.GeneralConditioner",
            "params": {"emb_models": embedders},
        },
        "first_stage_config": autoencoder_config("sgm.models.autoencoder.AutoencoderKLInferenceWrapper"),
    }
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}


def autoencoder_config(target: str) -> dict:
    shape = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    identity = {"target": "torch.nn.Identity"}
    return {
        "target": target,
        "params": {"embed_dim": 4, "ddconfig": shape, "lossconfig": identity},
    }


def write_text_encoder(folder: Path, width: int, layers: int, heads: int) -> Path:
    """A folder that `CLIPTokenizer` and `CLIPTextModel` accept as the name of a model."""
    from open_clip.tokenizer import SimpleTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): index for token, index in tokenizer.encoder.items()}
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "vocab.json", vocabulary)
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    special["pad_token"] = "<|endoftext|>"
    write_json(
        folder / "tokenizer_config.json",
        {**special, "model_max_length": 77, "do_lower_case": True},
    )
    write_json(folder / "special_tokens_map.json", special)
    config = {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModel"],
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "projection_dim": width,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
    }
    write_json(folder / "config.json", config)
    return folder


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


# Weights


def write_checkpoint(
    out: Path,
    name: str,
    config: dict,
    network: nn.ModuleDict,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> nn.ModuleDict:
    fill(network, torch.Generator().manual_seed(seed))
    weights = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in state_of(network)
    }
    path = out / "Stable-diffusion" / f"{name}.safetensors"
    save_file(weights, path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return network


def state_of(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in network.state_dict().items():
        yield key, value.detach().contiguous().clone()


@torch.no_grad()
def fill(network: nn.Module, generator: torch.Generator) -> None:
    """Random weights that keep the size of what passes through: std 1/sqrt(fan in), norms near one.

    The biases of norms are not zero in the mean: the WebUI divides by the mean of a text encoder's output.
    """
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("logit_scale"):
            value.fill_(math.log(100))
        elif "embedding" in name and value.dim() == 2:
            value.copy_(noise * 0.5)
        elif value.dim() >= 2:
            value.copy_(noise / math.sqrt(value[0].numel()))
        elif name.endswith("weight"):
            value.copy_(1 + 0.1 * noise)
        else:
            value.copy_(0.1 + 0.1 * noise)


# LoRAs


def write_lora(
    out: Path,
    name: str,
    layers: dict[str, tuple[int, ...]],
    rank: int,
    alpha: float,
    seed: int,
    base: str,
) -> None:
    """A LoRA in the kohya format: at weight 1 its delta is LORA_STRENGTH[base] times the layer's size."""
    generator = torch.Generator().manual_seed(seed)
    strength = LORA_STRENGTH[base] * rank / alpha
    weights: Weights = {}
    for key, shape in layers.items():
        fan_in = math.prod(shape[1:])
        down = torch.randn(rank, *shape[1:], generator=generator) / math.sqrt(fan_in)
        up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator) / math.sqrt(rank)
        weights[f"{key}.lora_down.weight"] = down.half()
        weights[f"{key}.lora_up.weight"] = (strength * up).half()
        weights[f"{key}.alpha"] = torch.tensor(alpha)
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": base,
    }
    save_file(weights, out / "Lora" / f"{name}.safetensors", metadata=metadata)


LORA_STRENGTH = {"sd_v1": 0.25, "sd_v2": 0.25, "sdxl_base_v1-0": 0.15}

TEXT_LAYER = re.compile(r"text_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")
TRANSFORMER_LAYER = re.compile(
    r"\.1\.(proj_in|proj_out|transformer_blocks\..*(to_[qkv]|to_out\.0|net\.0\.proj|net\.2))$"
)
RESNET_CONVOLUTION = re.compile(r"\.(in_layers\.2|out_layers\.3)$")
RESNET_NAMES = {"in_layers_2": "conv1", "out_layers_3": "conv2"}


def unet_layers(network: nn.ModuleDict, convolutions: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(module path, weight shape) of every layer of the UNet that a LoRA of this kind changes."""
    for path, module in network["model"]["diffusion_model"].named_modules():
        wanted = TRANSFORMER_LAYER.search(path) or (convolutions and RESNET_CONVOLUTION.search(path))
        if wanted and isinstance(module, (nn.Linear, nn.Conv2d)):
            yield path, tuple(module.weight.shape)


def text_layers(transformer: nn.Module, prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}_{path.replace('.', '_')}": tuple(module.weight.shape)
        for path, module in transformer.named_modules()
        if TEXT_LAYER.search(path)
    }


def open_clip_layers(model: nn.Module, prefix: str) -> dict[str, tuple[int, ...]]:
    """OpenCLIP's layers under the names of transformers, q, k and v apart."""
    layers = {}
    for index, block in enumerate(model.transformer.resblocks):
        stem = f"{prefix}_text_model_encoder_layers_{index}"
        width = block.attn.embed_dim
        layers.update({f"{stem}_self_attn_{part}_proj": (width, width) for part in ("q", "k", "v", "out")})
        layers[f"{stem}_mlp_fc1"] = tuple(block.mlp.c_fc.weight.shape)
        layers[f"{stem}_mlp_fc2"] = tuple(block.mlp.c_proj.weight.shape)
    return layers


def sd1_lora_layers(network: nn.ModuleDict, convolutions: bool) -> dict[str, tuple[int, ...]]:
    """kohya key to weight shape, with the names of diffusers."""
    layers = text_layers(network["cond_stage_model"]["transformer"], "lora_te")
    for path, shape in unet_layers(network, convolutions):
        layers[f"lora_unet_{diffusers_name(path)}"] = shape
    return layers


def sd2_lora_layers(network: nn.ModuleDict, convolutions: bool) -> dict[str, tuple[int, ...]]:
    """kohya key to weight shape, with the names of diffusers."""
    layers = open_clip_layers(network["cond_stage_model"]["model"], "lora_te")
    for path, shape in unet_layers(network, convolutions):
        layers[f"lora_unet_{diffusers_name(path)}"] = shape
    return layers


def sdxl_lora_layers(network: nn.ModuleDict, convolutions: bool) -> dict[str, tuple[int, ...]]:
    """kohya key to weight shape, with the names of the original SDXL code and two text encoders."""
    first, second = network["conditioner"]["embedders"]
    layers = text_layers(first["transformer"], "lora_te1")
    layers.update(open_clip_layers(second["model"], "lora_te2"))
    for path, shape in unet_layers(network, convolutions):
        layers[f"lora_unet_{path.replace('.', '_')}"] = shape
    return layers


def diffusers_name(path: str) -> str:
    """`input_blocks.4.1.proj_in` to `down_blocks_1_attentions_0_proj_in`, for SD1's two resnets per level."""
    block, *rest = path.split(".")
    if block == "middle_block":
        index, *rest = rest
        kind, number = ("attentions", 0) if index == "1" else ("resnets", int(index) // 2)
        prefix = "mid_block"
    else:
        position, part, *rest = rest
        down = block == "input_blocks"
        level, number = divmod(int(position) - 1 if down else int(position), 3)
        kind = "attentions" if part == "1" else "resnets"
        prefix = f"{'down' if down else 'up'}_blocks_{level}"
    layer = "_".join(rest)
    return f"{prefix}_{kind}_{number}_{RESNET_NAMES.get(layer, layer)}"


if __name__ == "__main__":
    main()
