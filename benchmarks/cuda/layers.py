"""A small layer of every kind that LoRAs reach, with an input for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROWS = 2
_LINEAR = "unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
_CONVOLUTION = "unet_input_blocks_1_0_in_layers_2"


@dataclass(frozen=True)
class Sample:
    """name: a canonical one of such a layer; shape: of the input, without rows."""

    name: str
    layer: Callable[[], nn.Module]
    shape: tuple[int, ...]
    channels_last: bool = False

    def made(self, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
        """The layer and an input of two rows, with random numbers, on the CPU."""
        generator = torch.Generator().manual_seed(1)
        layer = self.layer().requires_grad_(False)
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
        x = torch.randn(ROWS, *self.shape, generator=generator)
        if self.channels_last:
            layer, x = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        return layer.to(dtype), x.to(dtype)


def _convolution(*size: int, channels_last: bool = False, **options) -> Sample:
    return Sample(_CONVOLUTION, lambda: nn.Conv2d(16, 32, *size, **options), (16, 12, 12), channels_last)


LAYERS = {
    "linear": Sample(_LINEAR, lambda: nn.Linear(48, 64), (10, 48)),
    "linear without bias": Sample(_LINEAR, lambda: nn.Linear(48, 64, bias=False), (10, 48)),
    "1 × 1": _convolution(1),
    "3 × 3": _convolution(3, padding=1),
    "strided": _convolution(3, stride=2, padding=1),
    "circular": _convolution(3, padding=1, padding_mode="circular"),
    "channels last": _convolution(3, padding=1, channels_last=True),
}
NORMS = {
    "group norm": Sample("unet_input_blocks_1_0_in_layers_0", lambda: nn.GroupNorm(8, 32), (32, 12, 12)),
    "layer norm": Sample("unet_input_blocks_1_1_transformer_blocks_0_norm1", lambda: nn.LayerNorm(48), (10, 48)),
}
