"""Makers for the tests: toy models of the real classes, and small LoRAs for them in every dialect of key names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.widening.layout_writers import UNETS, ldm_name

LAYOUTS = {"sd1": UNETS["SD1"], "sdxl": UNETS["SDXL"]}


def tiny_unet(layout: str = "sd1", seed: int = 0, **changes) -> nn.Module:
    """diffusers' `UNet2DConditionModel` with the block layout of SD1 or SDXL, a few channels wide, in eval mode."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(sample_size=8, **{**LAYOUTS[layout], **changes}).eval()


def tiny_clip(seed: int = 0) -> nn.Module:
    """transformers' `CLIPTextModel` with two layers, 12 wide, in eval mode."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=50, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=9, bos_token_id=48, eos_token_id=49, projection_dim=12)).eval()


class TinyOpenClip(nn.Module):
    """OpenCLIP's text transformer in miniature: its module names, its packed attention, its order of calls."""

    def __init__(self, width: int = 12, layers: int = 2):
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(_OpenClipBlock(width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        for block in self.transformer.resblocks:
            x = x + block.attn(block.ln_1(x), block.ln_1(x), block.ln_1(x), need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        return x


class _OpenClipBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 2 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(2 * width, width))


def matrices(model: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolution layers of a model by their dotted names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}


def factors(shape: Iterable[int], rank: int, seed: int, dtype: torch.dtype = torch.float32,
            size: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """down and up for a weight of this shape, so scaled that up · down · 1 has entries of about 0.2 · `size`."""
    out, inputs, *kernel = shape
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, *kernel, generator=generator) * 0.4
    up = torch.randn(out, rank, *[1] * len(kernel), generator=generator) * 0.5 * size / rank**0.5
    return down.to(dtype), up.to(dtype)


def deltas_for(modules: Mapping[str, nn.Module], rank: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32,
               size: float = 1.0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(down, up) for every module, by its dotted name."""
    return {name: factors(module.weight.shape, rank, 1000 * seed + i, dtype, size)
            for i, (name, module) in enumerate(modules.items())}


def kohya(deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]], prefix: str = "lora_unet_",
          alpha: float | None = None) -> dict[str, torch.Tensor]:
    """kohya's keys: flat layer names, `.lora_down.weight`, `.lora_up.weight`, `.alpha`."""
    state = {}
    for name, (down, up) in deltas.items():
        stem = prefix + name.replace(".", "_")
        state[f"{stem}.lora_down.weight"], state[f"{stem}.lora_up.weight"] = down, up
        if alpha is not None:
            state[f"{stem}.alpha"] = torch.tensor(float(alpha))
    return state


def dotted(deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]], prefix: str = "unet.",
           down: str = ".lora_A.weight", up: str = ".lora_B.weight") -> dict[str, torch.Tensor]:
    """The keys of diffusers and PEFT: the module's own name, then what the file calls down and up."""
    state = {}
    for name, pair in deltas.items():
        state[prefix + name + down], state[prefix + name + up] = pair
    return state


def ldm(deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The same deltas under LDM's module names."""
    return {ldm_name(name): pair for name, pair in deltas.items()}


def select(modules: Mapping[str, nn.Module], pattern: str) -> dict[str, nn.Module]:
    """The modules whose dotted name has a match of the pattern."""
    return {name: module for name, module in modules.items() if re.search(pattern, name)}


def save(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file."""
    save_file({key: tensor.clone().contiguous() for key, tensor in state.items()}, path, metadata and dict(metadata))
    return path


def raw_safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file written by hand, so that it can be wrong: any header, any declared length of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def pair(stem: str = "lora_unet_mid_block_attentions_0_proj_in", rank: int = 2, **more) -> dict[str, torch.Tensor]:
    """The two matrices of one linear layer under kohya's names, and more tensors of the same layer."""
    return {f"{stem}.lora_down.weight": torch.ones(rank, 6), f"{stem}.lora_up.weight": torch.ones(8, rank),
            **{f"{stem}.{part}": tensor for part, tensor in more.items()}}
