"""A model for ControlNet with random weights: a T2I-Adapter, which fits any width of UNet. ControlNets proper the
extension builds 320 channels wide only."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def _convolution(random: torch.Generator, out: int, inputs: int, kernel: int, strength: float = 1.0) -> Tensor:
    return strength * torch.randn(out, inputs, kernel, kernel, generator=random) / (inputs * kernel * kernel) ** 0.5


def write_adapter(path: Path, width: int = 32, strength: float = 1.0) -> Path:
    """A T2I-Adapter for a UNet of so many channels: eight blocks on four levels, read from the picture's 8 × 8 squares.
    """
    random = torch.Generator().manual_seed(8)
    channels = [width, 2 * width, 4 * width, 4 * width]
    state = {"conv_in.weight": _convolution(random, width, 3 * 64, 3, 2.0), "conv_in.bias": torch.zeros(width)}
    before = width
    for level, out in enumerate(channels):
        for block in range(2):
            place = f"body.{2 * level + block}"
            for name, inputs, kernel in (("in_conv", before, 1), ("block1", out, 3), ("block2", out, 1)):
                if name != "in_conv" or inputs != out:
                    state[f"{place}.{name}.weight"] = _convolution(random, out, inputs, kernel, strength)
                    state[f"{place}.{name}.bias"] = torch.zeros(out)
            before = out
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path
