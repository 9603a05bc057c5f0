"""A diffusers folder of SD 1's architecture, of any size, as a checkpoint that the WebUI loads.

The weights get the names of the original LDM code; beside the checkpoint lies its configuration, and a folder with
the text encoder's configuration and vocabulary, which the WebUI would otherwise take from a model hub.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import SciArtError
from ..whole_file import write_text, written_whole

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
_UNET = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
         "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_TOKENIZER = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
              "pad_token": "<|endoftext|>", "model_max_length": 77, "do_lower_case": True}


def export_webui(model: Path, models_dir: Path, name: str) -> list[Path]:
    """Writes `Stable-diffusion/<name>.safetensors`, its `.yaml` and `Lora/<name>-*.safetensors`; returns the files.

    model: a diffusers folder, its LoRAs in `loras`. Raises `SciArtError` where that is not what is there.
    """
    if not (model / "model_index.json").is_file():
        raise SciArtError("model", f"{model}: not a diffusers model; there is no model_index.json in it")
    checkpoints, loras = models_dir / "Stable-diffusion", models_dir / "Lora"
    text = _write_text_folder(model, checkpoints / f"{name}-text")
    written = [checkpoints / f"{name}.safetensors", checkpoints / f"{name}.yaml"]
    with written_whole(written[0]) as temporary:
        save_file(dict(ldm_tensors(model)), temporary)
    # JSON is YAML too
    write_text(written[1], json.dumps(ldm_config(model, text), indent=1))
    for path in sorted((model / "loras").glob("*.safetensors")):
        written.append(loras / f"{name}-{path.name}")
        _copy(path, written[-1])
    return written


def ldm_tensors(model: Path) -> Iterator[tuple[str, Tensor]]:
    """Every weight under the name that the LDM code gives it."""
    unet, vae = _config(model, "unet"), _config(model, "vae")
    with_attention = [kind.startswith("CrossAttn") for kind in unet["up_block_types"]]
    for key, value in _weights(model / "unet").items():
        yield f"model.diffusion_model.{unet_key(key, with_attention)}", value
    levels = len(vae["block_out_channels"])
    for key, value in _weights(model / "vae").items():
        renamed = vae_key(key, levels)
        if ".attn_1." in renamed and value.dim() == 2:
            value = value[:, :, None, None].contiguous()  # LDM's attention projects by 1 × 1 convolutions
        yield f"first_stage_model.{renamed}", value
    for key, value in _weights(model / "text_encoder").items():
        flat = key if key.startswith("text_model.") else f"text_model.{key}"
        yield f"cond_stage_model.transformer.{flat}", value


def unet_key(key: str, with_attention: list[bool]) -> str:
    """diffusers' name of a UNet parameter → LDM's. with_attention: per up block."""
    stem, _, kind = key.rpartition(".")
    if stem in _UNET:
        return f"{_UNET[stem]}.{kind}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.+)", stem)
    if match:
        side, block, part, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        number = 3 * block + index + (side == "down")
        return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{_inside(part, rest)}.{kind}"
    match = re.fullmatch(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)", stem)
    if match:
        number = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{number}.{_inside(match[1], match[3])[2:]}.{kind}"
    match = re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", stem)
    if match:
        return f"input_blocks.{3 + 3 * int(match[1])}.0.op.{kind}"
    match = re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", stem)
    if match:
        block = int(match[1])
        return f"output_blocks.{3 * block + 2}.{2 if with_attention[block] else 1}.conv.{kind}"
    raise SciArtError("model", f"UNet parameter {key} is not of SD 1's architecture")


def vae_key(key: str, levels: int) -> str:
    """diffusers' name of an autoencoder's parameter → LDM's."""
    for pattern, name in ((r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
                          (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
                          (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"),
                          (r"conv_norm_out", "norm_out"), (r"conv_shortcut", "nin_shortcut")):
        key = re.sub(pattern, name, key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    match = re.fullmatch(r"(.+)mid_block\.attentions\.0\.(.+)\.(weight|bias)", key)
    return f"{match[1]}mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}" if match else key


def ldm_config(model: Path, text: Path) -> dict:
    """The WebUI's configuration of the model; `text`: the folder with its text encoder's configuration."""
    unet, vae, noise = _config(model, "unet"), _config(model, "vae"), _config(model, "scheduler")
    widths = unet["block_out_channels"]
    attention = [2**i for i, kind in enumerate(unet["down_block_types"]) if kind.startswith("CrossAttn")]
    unet_params = {
        "image_size": unet["sample_size"], "in_channels": 4, "out_channels": 4, "model_channels": widths[0],
        "attention_resolutions": attention, "num_res_blocks": unet["layers_per_block"],
        "channel_mult": [width // widths[0] for width in widths], "num_heads": unet["attention_head_dim"],
        "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": unet["cross_attention_dim"],
        "use_checkpoint": False, "legacy": False}
    first = vae["block_out_channels"][0]
    autoencoder = {
        "double_z": True, "z_channels": 4, "resolution": vae["sample_size"], "in_channels": 3, "out_ch": 3, "ch": first,
        "ch_mult": [width // first for width in vae["block_out_channels"]], "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [], "dropout": 0.0}
    params = {
        "linear_start": noise["beta_start"], "linear_end": noise["beta_end"], "num_timesteps_cond": 1,
        "timesteps": noise["num_train_timesteps"], "first_stage_key": "jpg", "cond_stage_key": "txt",
        "image_size": unet["sample_size"], "channels": 4, "cond_stage_trainable": False,
        "conditioning_key": "crossattn", "scale_factor": vae["scaling_factor"], "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet_params},
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL",
                               "params": {"embed_dim": 4, "ddconfig": autoencoder,
                                          "lossconfig": {"target": "torch.nn.Identity"}}},
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                              "params": {"version": str(text.resolve())}}}
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def _write_text_folder(model: Path, folder: Path) -> Path:
    """What the WebUI's transformers reads in place of a hub's model: configuration and vocabulary, no weights."""
    config = {**_config(model, "text_encoder"), "architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
    write_text(folder / "config.json", json.dumps(config, indent=1))
    write_text(folder / "tokenizer_config.json", json.dumps(_TOKENIZER, indent=1))
    for file in ("vocab.json", "merges.txt"):
        _copy(model / "tokenizer" / file, folder / file)
    return folder


def _copy(source: Path, path: Path) -> None:
    with written_whole(path) as temporary:
        shutil.copyfile(source, temporary)


def _inside(part: str, rest: str) -> str:
    return f"1.{rest}" if part == "attentions" else f"0.{_RESNET.get(rest, rest)}"


def _config(model: Path, part: str) -> dict:
    file = {"scheduler": "scheduler_config.json"}.get(part, "config.json")
    return json.loads((model / part / file).read_text(encoding="utf-8"))


def _weights(folder: Path) -> Mapping[str, Tensor]:
    return load_file(next(folder.glob("*.safetensors")))
