"""A Real-ESRGAN file of random weights, small: the WebUI finds it where it would download the real one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

FILE = "models/RealESRGAN/RealESRGAN_x4plus.pth"
NAME = "R-ESRGAN 4x+"


def write_upscaler(path: Path, width: int = 8, growth: int = 32) -> Path:
    """One residual-in-residual dense block of `width` channels, four times as large."""
    random = torch.Generator().manual_seed(4)
    state: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, out: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, inputs, 3, 3, generator=random) / (9 * inputs) ** 0.5
        state[f"{name}.bias"] = torch.zeros(out)

    convolution("conv_first", 3, width)
    for block in (1, 2, 3):
        for layer in range(1, 6):
            convolution(f"body.0.rdb{block}.conv{layer}", width + (layer - 1) * growth, growth if layer < 5 else width)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        convolution(name, width, width)
    convolution("conv_last", width, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the WebUI refuses files of torch's zip format since torch 2.4 writes more into them
    torch.save({"params_ema": state}, path, _use_new_zipfile_serialization=False)
    return path
