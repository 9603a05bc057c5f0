"""The UNet in plain torch that `benchmarks.gpu` runs is that of SD 1.5, and of SDXL."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers import UNet2DConditionModel

from benchmarks.cuda.unet import SD15, SDXL, UNet
from benchmarks.random_weights import filled
from sciart_ext.guidance.attention import AttentionMaps
from sciart_ext.mixer.targets import diffusers_unet_layers, ldm_unet_layers

SDXL_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
}
FULL = {
    "SD 1.5": (SD15, {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}),
    "SDXL": (SDXL, {**SDXL_BLOCKS, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
                    "projection_class_embeddings_input_dim": 2816}),
}
NARROW = {
    "SD 1.5": (SD15.narrowed(64, 32), {"block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 32}),
    "SDXL": (SDXL.narrowed(32, 32), {**SDXL_BLOCKS, "block_out_channels": (32, 64, 128), "cross_attention_dim": 32,
                                     "attention_head_dim": (1, 2, 4), "projection_class_embeddings_input_dim": 128}),
}


def shapes(layers):
    return {name: (tuple(target.weight().shape), target.bias().weight() is None) for name, target in layers.items()}


@pytest.mark.parametrize("name", FULL)
def test_layers_and_shapes_are_those_of_diffusers(name):
    topology, options = FULL[name]
    with torch.device("meta"):
        ours, theirs = UNet(topology), UNet2DConditionModel(**options)
    assert shapes(ldm_unet_layers(ours)) == shapes(diffusers_unet_layers(theirs))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", NARROW)
@torch.no_grad()
def test_with_the_same_weights_the_output_is_that_of_diffusers(name, one_thread):
    topology, options = NARROW[name]
    with torch.device("meta"):
        ours, theirs = UNet(topology), UNet2DConditionModel(**options)
    ours, theirs = (filled(one, torch.float32, torch.device("cpu")) for one in (ours, theirs))
    sources = ldm_unet_layers(ours)
    for layer, target in diffusers_unet_layers(theirs).items():
        target.weight().copy_(sources[layer].weight())
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, 8, 16, generator=generator)
    times, text = torch.tensor([500, 20]), torch.randn(2, 5, 32, generator=generator)
    told, label = None, None
    if topology.label:
        label = torch.randn(2, topology.label, generator=generator)
        told = {"text_embeds": label, "time_ids": torch.zeros(2, 0)}  # diffusers joins both itself
    expected = theirs(x, times, text, added_cond_kwargs=told).sample
    assert torch.allclose(ours(x, times, text, label), expected, atol=1e-4, rtol=1e-4)


def test_its_attention_is_seen():
    unet = filled(UNet(SD15.narrowed(32, 16)), torch.float32, torch.device("cpu"))
    with AttentionMaps(unet, ldm_unet_layers(unet)) as maps, torch.no_grad():
        maps.record(2)
        unet(torch.randn(2, 4, 16, 16), torch.tensor([500, 500]), torch.randn(2, 7, 16))
        found = maps.maps()
    assert found.shape == (2, 4, 4, 7) and torch.allclose(found.sum(-1), torch.ones(2, 4, 4))
