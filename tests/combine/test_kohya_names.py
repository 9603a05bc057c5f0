"""Kohya's names lead back to the layers they are made from, for every layer of the real classes."""

from __future__ import annotations

import pytest
from lora_files import matrices, tiny_clip, tiny_unet

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.lora.keys import parse_key
from sciart_ext.lora.kohya_names import kohya_name
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_every_layer_comes_back(layout):
    layers = [*diffusers_unet_layers(tiny_unet(layout)), *clip_layers(tiny_clip(), "te1")]
    layers += clip_layers(tiny_clip(), "te2") if layout == "sdxl" else []
    names = [kohya_name(layer, layout == "sdxl") for layer in layers]
    assert len(set(names)) == len(layers)
    assert [parse_key(f"{name}.alpha").layer for name in names] == layers


def test_sd1_has_diffusers_own_names():
    modules = matrices(tiny_unet())
    names = {kohya_name(layer, False) for layer in diffusers_unet_layers(tiny_unet())}
    assert names >= {"lora_unet_" + name.replace(".", "_") for name in modules}
    assert kohya_name("te1_text_model_encoder_layers_0_mlp_fc1", False) == "lora_te_text_model_encoder_layers_0_mlp_fc1"


def test_sdxl_has_ldms_names_as_kohya_writes_them():
    for layer, name in (
            ("unet_input_blocks_4_1_proj_in", "lora_unet_input_blocks_4_1_proj_in"),
            ("unet_output_blocks_2_upsampler_conv", "lora_unet_output_blocks_2_2_conv"),
            ("unet_input_blocks_3_0_op", "lora_unet_input_blocks_3_0_op"),
            ("te1_text_model_encoder_layers_0_mlp_fc1", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
            ("te2_text_model_encoder_layers_3_mlp_fc2", "lora_te2_text_model_encoder_layers_3_mlp_fc2")):
        assert kohya_name(layer, True) == name
