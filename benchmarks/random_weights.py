"""Random weights of a UNet, and random LoRAs on it, where only time, memory or agreement are looked at."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.mixer.targets import Target

RANK = 32
SCALE = 0.5
"""alpha / rank"""
LORA_LAYER = re.compile(r"(proj_in|proj_out|to_[qkv]|to_out_0|net_0_proj|net_2)$")


def filled(unet: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A UNet made on the meta device, with random weights such that what passes through keeps its size."""
    unet = unet.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(5)
    for name, weight in unet.named_parameters():
        if weight.dim() > 1:
            weight.uniform_(-1, 1, generator=generator).mul_(math.sqrt(3 / weight[0].numel()))
        else:
            weight.fill_(float(name.endswith("weight")))
    return unet


def random_lora(name: str, layers: Mapping[str, Target], seed: int, base: str = "SD1", rank: int = RANK,
                dtype: torch.dtype = torch.float16, drawn_on: torch.device | str = "cpu") -> LoraFile:
    """A LoRA whose numbers a device draws; they lie in main memory, as a file's."""
    generator = torch.Generator(drawn_on).manual_seed(seed)

    def draw(shape: Sequence[int], size: float) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator, device=drawn_on) * size).to("cpu", dtype)

    return lora_of(name, layers, draw, base, rank)


def lora_of(name: str, layers: Mapping[str, Target], draw: Callable[[Sequence[int], float], torch.Tensor],
            base: str = "SD1", rank: int = RANK) -> LoraFile:
    """A LoRA on the layers that LoRAs usually have: those of the transformers. draw(shape, standard deviation)."""
    deltas = {}
    for layer, target in layers.items():
        if LORA_LAYER.search(layer):
            shape = target.weight().shape
            down = draw((rank, *shape[1:]), 1 / math.sqrt(shape[1:].numel()))
            up = draw((shape[0], rank, *[1] * (len(shape) - 2)), 0.25 / SCALE / math.sqrt(rank))
            deltas[layer] = LowRank(down, up, SCALE)
    return LoraFile(name, Path(f"{name}.safetensors"), "LoRA", base, deltas)
