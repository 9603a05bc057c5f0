"""Models for ControlNet with random weights: a T2I-Adapter, which fits any width of UNet, and a ControlNet proper, which
the extension builds 320 channels wide only."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
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


def write_controlnet(path: Path, checkpoint: Path, strength: float = 1.0) -> Path:
    """A ControlNet for this checkpoint of SD 1.5's size: a copy of its UNet's encoder, which reads the picture too, and
    whose outputs are added to the UNet's own, `strength` times as large (trained ones begin at 0)."""
    random, prefix, state = torch.Generator().manual_seed(8), "model.diffusion_model.", {}
    with safe_open(checkpoint, "pt") as file:
        for key in file.keys():
            if key.startswith((f"{prefix}time_embed.", f"{prefix}input_blocks.", f"{prefix}middle_block.")):
                state[key.removeprefix(prefix)] = file.get_tensor(key).half()
    hint = [(3, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256), (256, 320)]
    out = [320] * 4 + [640] * 3 + [1280] * 5
    layers = {**{f"input_hint_block.{2 * k}": (inputs, outputs, 3) for k, (inputs, outputs) in enumerate(hint)},
              **{f"zero_convs.{k}.0": (width, width, 1) for k, width in enumerate(out)},
              "middle_block_out.0": (1280, 1280, 1)}
    for name, (inputs, outputs, kernel) in layers.items():
        scale = {"input_hint_block.14": 200.0}.get(name, strength if "hint" not in name else 1.0)  # so that poses tell
        state[f"{name}.weight"] = _convolution(random, outputs, inputs, kernel, scale).half()
        state[f"{name}.bias"] = torch.zeros(outputs).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path
