"""Models for ControlNet with random weights: a ControlNet, and a T2I-Adapter, which fits any width of UNet."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

UNET = "model.diffusion_model."
COPIED = re.compile(r"(time_embed|input_blocks|middle_block)\.")
HINT = ((3, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256), (256, None))
"""channels of the convolutions that read the picture; the last gives the UNet's own"""


def _convolution(random: torch.Generator, out: int, inputs: int, kernel: int, strength: float = 1.0) -> Tensor:
    return strength * torch.randn(out, inputs, kernel, kernel, generator=random) / (inputs * kernel * kernel) ** 0.5


def write_controlnet(path: Path, checkpoint: Path, strength: float = 0.5, dtype: torch.dtype = torch.float32) -> Path:
    """The copy of the UNet's first half that training would start from, but with connections that are not zero."""
    random, state = torch.Generator().manual_seed(7), {}
    with safe_open(checkpoint, framework="pt") as file:
        for key in file.keys():
            if key.startswith(UNET) and COPIED.match(key[len(UNET):]):
                state[key[len(UNET):]] = file.get_tensor(key)
    count = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("input_blocks."))
    ends = ("0.out_layers.3.weight", "0.op.weight", "0.weight")
    widths = [next(len(state[name]) for end in ends if (name := f"input_blocks.{i}.{end}") in state)
              for i in range(count)]
    places = [*(f"zero_convs.{i}.0" for i in range(count)), "middle_block_out.0"]
    for place, width in zip(places, [*widths, widths[-1]]):
        state[f"{place}.weight"] = _convolution(random, width, width, 1, strength)
        state[f"{place}.bias"] = torch.zeros(width)
    for i, (inputs, out) in enumerate(HINT):
        state[f"input_hint_block.{2 * i}.weight"] = _convolution(random, out or widths[0], inputs, 3, 2.0)
        state[f"input_hint_block.{2 * i}.bias"] = torch.zeros(out or widths[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.to(dtype).contiguous() for key, value in state.items()}, path)
    return path


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
