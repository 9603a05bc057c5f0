"""The UNets of SD 1.5 and SDXL in plain torch, with the LDM code's names, at any width.

Topology and names are those of CompVis' `ldm.modules.diffusionmodules.openaimodel.UNetModel` and Stability's `sgm`,
which the WebUI runs; a test compares every layer's name and shape, and the output, with diffusers' classes. There is no
option beyond what these two models have, no dropout and no checkpointing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32


@dataclass(frozen=True)
class Topology:
    """What tells one UNet of the family from another.

    channels: of the first level; depths: transformer blocks at each level, 0 where there is no attention; context:
    width of the text; heads: of every attention, or 0 where each is `head_width` wide; label: width of what SDXL is
    told beside the text (pooled text and sizes), 0 for none; linear: whether the transformers' projections are linear
    layers rather than convolutions; blocks: at each level on the way down, and one more on the way up.
    """

    name: str
    channels: int
    multipliers: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context: int
    heads: int = 0
    head_width: int = 64
    label: int = 0
    linear: bool = False
    blocks: int = 2

    def narrowed(self, channels: int, context: int) -> Topology:
        """The same layers with fewer channels, a multiple of 32."""
        return replace(self, name=f"{self.name}, {channels} wide", channels=channels, context=context,
                       head_width=min(self.head_width, channels), label=self.label and 4 * channels)


SD15 = Topology("SD 1.5", 320, (1, 2, 4, 4), (1, 1, 1, 0), 1, 768, heads=8)
SDXL = Topology("SDXL", 320, (1, 2, 4), (0, 2, 10), 10, 2048, label=2816, linear=True)


class UNet(nn.Module):
    """x (rows, 4, h, w), times (rows,), context (rows, tokens, width), y (rows, label) → (rows, 4, h, w)."""

    def __init__(self, topology: Topology):
        super().__init__()
        self.topology = one = topology
        width, embedded = one.channels, 4 * one.channels
        self.time_embed = _two_layers(width, embedded)
        if one.label:
            self.label_emb = nn.Sequential(_two_layers(one.label, embedded))
        self.input_blocks = nn.ModuleList([_Steps(nn.Conv2d(4, width, 3, padding=1))])
        kept = [width]
        for level, (multiplier, depth) in enumerate(zip(one.multipliers, one.depths)):
            for _ in range(one.blocks):
                self.input_blocks.append(_Steps(_ResBlock(width, one.channels * multiplier, embedded),
                                                *_transformer(one, one.channels * multiplier, depth)))
                width = one.channels * multiplier
                kept.append(width)
            if level < len(one.depths) - 1:
                self.input_blocks.append(_Steps(_Downsample(width)))
                kept.append(width)
        self.middle_block = _Steps(_ResBlock(width, width, embedded), *_transformer(one, width, one.middle_depth),
                                   _ResBlock(width, width, embedded))
        self.output_blocks = nn.ModuleList()
        for level, (multiplier, depth) in reversed(list(enumerate(zip(one.multipliers, one.depths)))):
            for number in range(one.blocks + 1):
                block = [_ResBlock(width + kept.pop(), one.channels * multiplier, embedded),
                         *_transformer(one, one.channels * multiplier, depth)]
                width = one.channels * multiplier
                if level and number == one.blocks:
                    block.append(_Upsample(width))
                self.output_blocks.append(_Steps(*block))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x: Tensor, times: Tensor, context: Tensor, y: Tensor | None = None) -> Tensor:
        embedding = self.time_embed(time_embedding(times, self.topology.channels).to(x.dtype))
        if self.topology.label:
            embedding = embedding + self.label_emb(y)
        kept = []
        for block in self.input_blocks:
            x = block(x, embedding, context)
            kept.append(x)
        x = self.middle_block(x, embedding, context)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], 1), embedding, context)
        return self.out(x)


def time_embedding(times: Tensor, width: int) -> Tensor:
    """Cosines and sines (rows, width) of times (rows,), as in Ho et al., arXiv 2006.11239."""
    rates = torch.exp(torch.arange(width // 2, device=times.device) * (-math.log(10000) / (width // 2)))
    angles = times[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


class _Steps(nn.Sequential):
    """What follows one another in a block; each part gets what it needs."""

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        for part in self:
            if isinstance(part, _ResBlock):
                x = part(x, embedding)
            elif isinstance(part, _SpatialTransformer):
                x = part(x, context)
            else:
                x = part(x)
        return x


class _ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedded: int):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.SiLU(),
                                       nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, outputs))
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Identity(),
                                        nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        inner = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(inner)


class _SpatialTransformer(nn.Module):
    def __init__(self, width: int, heads: int, depth: int, context: int, linear: bool):
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(_TransformerBlock(width, heads, context) for _ in range(depth))
        self.proj_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        inner, size = self.norm(x), x.shape[-2:]
        if not self.linear:
            inner = self.proj_in(inner)
        inner = inner.flatten(2).transpose(1, 2).contiguous()
        if self.linear:
            inner = self.proj_in(inner)
        for block in self.transformer_blocks:
            inner = block(inner, context)
        if self.linear:
            inner = self.proj_out(inner)
        inner = inner.transpose(1, 2).unflatten(2, size).contiguous()
        return (inner if self.linear else self.proj_out(inner)) + x


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.attn1 = _Attention(width, width, heads)
        self.ff = _FeedForward(width)
        self.attn2 = _Attention(width, context, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = self.attn1(normed, normed) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Identity())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for projected in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(_GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _GatedGelu(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)


class _Downsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))


def _transformer(one: Topology, width: int, depth: int) -> list[nn.Module]:
    """A list with a transformer of this depth, or with none."""
    heads = one.heads or width // one.head_width
    return [_SpatialTransformer(width, heads, depth, one.context, one.linear)] if depth else []
