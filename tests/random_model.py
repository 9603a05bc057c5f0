"""A tiny Stable Diffusion with random weights, SD 1's four levels, and three LoRAs for it.

Nothing is trained: pictures are patterns, but they depend on prompt, seed and LoRAs as a real model's do. Fixed seeds
make it the same each time. The trained model (`sciart_ext.world.MODEL`) has two levels only. So has this one if asked,
with 8 residual and 7 transformer blocks in place of SD 1's 22 and 16: for tests that compare many pictures, to which it
does not matter how many layers made them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sciart_ext.standalone.models import quiet
from training.vocabulary import byte_symbols

LATENT_SIZE = 24
TEXT_WIDTH = 64


@dataclass(frozen=True)
class RandomLora:
    """How one of the LoRAs is made: `strength` is the norm of a layer's delta over the norm of its weight."""

    rank: int
    alpha: float
    seed: int
    strength: float


LORAS = {
    "child": RandomLora(rank=4, alpha=4.0, seed=1, strength=1.0),
    "watercolor": RandomLora(rank=8, alpha=4.0, seed=2, strength=0.7),
    "science": RandomLora(rank=6, alpha=6.0, seed=3, strength=0.9),
}


def write_random_model(folder: Path, lora_folder: Path | None = None, levels: int = 4) -> tuple[Path, Path]:
    """Writes the model (a diffusers folder) and its LoRAs (by default into `loras` inside it). Returns both paths."""
    quiet()
    folder = Path(folder)
    lora_folder = Path(lora_folder) if lora_folder else folder / "loras"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        pipe = random_pipeline(folder / "tokenizer", levels)
        pipe.save_pretrained(folder)
        _write_vocabulary(folder / "tokenizer")  # transformers 5 writes tokenizer.json only, 4 reads these two
        lora_folder.mkdir(parents=True, exist_ok=True)
        for name, spec in LORAS.items():
            tensors = lora_tensors(pipe.unet, pipe.text_encoder, spec)
            save_file(tensors, lora_folder / f"{name}.safetensors", metadata={"ss_output_name": name})
    return folder, lora_folder


def random_pipeline(vocabulary: Path, levels: int = 4) -> StableDiffusionPipeline:
    """The model in memory; its tokenizer's vocabulary is written to the folder `vocabulary`."""
    return StableDiffusionPipeline(
        vae=random_vae(), text_encoder=random_text_encoder(), tokenizer=byte_tokenizer(vocabulary),
        unet=random_unet(levels),
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            prediction_type="v_prediction"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def random_unet(levels: int = 4) -> UNet2DConditionModel:
    """SD 1's UNet, narrow. Its output is brought to unit scale, and the prompt's share in it is made visible.

    levels: 4 as SD 1's, or 2, of which each has one layer where SD 1's have two.
    """
    attending = {4: 3, 2: 2}[levels]
    torch.manual_seed(11)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE, block_out_channels=(32, 64, 64, 64)[:levels], layers_per_block=levels // 2,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",) * (levels - attending),
        up_block_types=("UpBlock2D",) * (levels - attending) + ("CrossAttnUpBlock2D",) * attending,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=4).eval()
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_out.0"):
            module.weight.data.mul_(4.0)
    sample, text = torch.randn(1, 4, LATENT_SIZE, LATENT_SIZE), torch.randn(1, 77, TEXT_WIDTH)
    with torch.no_grad():
        _scale_output(unet.conv_out, unet(sample, 500, text).sample, 1.0)
    return unet


def random_vae() -> AutoencoderKL:
    """SD 1's autoencoder (one latent pixel per 8 x 8), narrow, with a picture of full contrast as output."""
    torch.manual_seed(12)
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=8,
        sample_size=8 * LATENT_SIZE, scaling_factor=0.18215).eval()
    with torch.no_grad():
        latent = torch.randn(1, 4, LATENT_SIZE, LATENT_SIZE) / vae.config.scaling_factor
        _scale_output(vae.decoder.conv_out, vae.decode(latent).sample, 0.5)
    return vae


def random_text_encoder() -> CLIPTextModel:
    """CLIP's text encoder with two layers."""
    torch.manual_seed(13)
    start, end = 512, 513
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=514, hidden_size=TEXT_WIDTH, projection_dim=TEXT_WIDTH, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77, initializer_factor=4.0,
        bos_token_id=start, eos_token_id=end, pad_token_id=end)).eval()


def byte_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer without merges: one token per byte, so that any text can be encoded."""
    _write_vocabulary(folder)
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True)


def lora_tensors(unet: nn.Module, text_encoder: nn.Module, spec: RandomLora) -> dict[str, Tensor]:
    """A LoRA file's tensors in kohya's key names, for the attention and feed-forward layers of both models."""
    generator = torch.Generator().manual_seed(spec.seed)
    tensors = {}
    for stem, weight in _targets(unet, text_encoder):
        down = torch.randn(spec.rank, weight[0].numel(), generator=generator)
        up = torch.randn(weight.shape[0], spec.rank, generator=generator)
        norm = (spec.alpha / spec.rank) * torch.linalg.norm(up @ down)
        share = math.sqrt(spec.strength * float(torch.linalg.norm(weight) / norm))
        shape = (-1, -1, 1, 1) if weight.dim() == 4 else (-1, -1)
        tensors[f"{stem}.lora_down.weight"] = (down * share).reshape(spec.rank, *weight.shape[1:]).half()
        tensors[f"{stem}.lora_up.weight"] = (up * share).reshape(up.shape + shape[2:]).half().contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(spec.alpha)
    return tensors


def _targets(unet: nn.Module, text_encoder: nn.Module):
    """(kohya's stem, weight) of each layer that gets a delta."""
    for name, module in unet.named_modules():
        if "attentions" in name and isinstance(module, (nn.Linear, nn.Conv2d)):
            yield "lora_unet_" + name.replace(".", "_"), module.weight
    for name, module in text_encoder.named_modules():
        if ".layers." in name and isinstance(module, nn.Linear):
            name = name.removeprefix("text_model.")  # transformers before 5 has it, kohya's names always
            yield "lora_te_text_model_" + name.replace(".", "_"), module.weight


def _scale_output(layer: nn.Module, output: Tensor, std: float) -> None:
    """Shifts and scales a last layer so that `output`, computed with it, would have mean 0 and this deviation."""
    factor = std / output.std(dim=(0, 2, 3))
    layer.weight.data.mul_(factor[:, None, None, None])
    layer.bias.data.sub_(output.mean(dim=(0, 2, 3))).mul_(factor)


def _write_vocabulary(folder: Path) -> None:
    """`vocab.json` (256 bytes, their forms at a word's end, start and end marks) and an empty `merges.txt`."""
    symbols = byte_symbols()
    words = symbols + [symbol + "</w>" for symbol in symbols] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
