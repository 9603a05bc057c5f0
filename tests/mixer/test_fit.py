"""LoRAs that fit a model, fit it in part, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_files import factors

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import EXECUTIONS, Bench, assert_near, dense

from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.fit import check_fit
from sciart_ext.mixer.mixer import Mixer


@pytest.mark.parametrize("channels", [8, 9], ids=["InstructPix2Pix", "inpainting"])
def test_a_lora_for_four_channels_fits_models_of_more(channels):
    plain, bench = Bench(), Bench(in_channels=channels)
    lora, (x, text) = plain.lora("conv_in"), bench.inputs()
    assert lora.layers["unet_input_blocks_0_0"].down.shape[1] == 4
    assert check_fit([lora], bench.layers, "a model") == []
    down, up, scale = lora.layers["unet_input_blocks_0_0"]
    padded = torch.cat([down, torch.zeros(len(down), channels - 4, 3, 3)], dim=1)
    wide = LoraFile("wide", lora.path, "LoRA", "unknown", {"unet_input_blocks_0_0": LowRank(padded, up, scale)})
    for execution in EXECUTIONS:
        with bench.mixer([lora], execution) as mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x, text), dense(bench, x, text, [wide], (0.5,)), 2e-5)


def test_a_convolution_of_one_by_one_takes_matrices_and_a_linear_layer_takes_kernels():
    for layout, name in (("sd1", "down_blocks.0.attentions.0.proj_in"), ("sdxl", "down_blocks.1.attentions.0.proj_in")):
        bench = Bench(layout)
        lora, (x, text) = bench.lora(name), bench.inputs()
        canonical = layer_name(f"unet.{name}")
        down, up, scale = lora.layers[canonical]
        other = (down.flatten(1), up.flatten(1)) if layout == "sd1" else (down[..., None, None], up[..., None, None])
        swapped = LoraFile("b", lora.path, "LoRA", "unknown", {canonical: LowRank(*other, scale)})
        assert check_fit([swapped], bench.layers, "a model") == []
        for execution in EXECUTIONS:
            with bench.mixer([swapped], execution) as mixer:
                mixer.set_gates([[0.5]])
                assert_near(bench(x, text), dense(bench, x, text, [lora], (0.5,)), 2e-5)


LAYER = "unet_middle_block_1_transformer_blocks_0_attn2_to_k"


def lora_of(layers, base="SDXL"):
    return LoraFile("child", Path("child.safetensors"), "LoRA", base, layers)


@pytest.mark.parametrize(("down", "up", "shape"), [
    ((2, 2048), (16, 2), (16, 2048)), ((2, 12), (32, 2), (32, 12)), ((2, 12, 3, 3), (16, 2, 1, 1), (16, 12, 3, 3)),
])
def test_a_lora_of_another_shape_is_refused_with_both_shapes(bench, down, up, shape):
    lora = lora_of({LAYER: LowRank(torch.ones(down), torch.ones(up), 1.0)})
    with pytest.raises(SciArtError) as caught:
        check_fit([bench.lora(), lora], bench.layers, "toy.safetensors (SD1)")
    assert caught.value.field == "child.safetensors"
    assert caught.value.message == (f"{LAYER} has shape {shape}, the layer of toy.safetensors (SD1) has (16, 12); "
                                    "it is made for SDXL")
    with pytest.raises(ValueError, match=r"child\.safetensors: .* does not fit"):
        Mixer(bench.unet, bench.layers, [lora])


def test_layers_that_the_model_lacks_are_noted(bench):
    delta = LowRank(*factors((16, 12), 2, 0), 1.0)
    lora = lora_of({LAYER: delta, "unet_label_emb_0_0": delta, "te2_text_model_encoder_layers_0_mlp_fc1": delta})
    assert check_fit([bench.lora(), lora], bench.layers, "toy") == [
        "child: 2 of 3 layers are not in toy and were left out (first: unet_label_emb_0_0)"]
    assert Mixer(bench.unet, bench.layers, [lora]).layer_names == [LAYER]


@pytest.mark.parametrize(("base", "made_for"), [("SDXL", "; it is made for SDXL"), ("unknown", "")])
def test_a_lora_that_fits_no_layer_is_refused(bench, base, made_for):
    lora = lora_of({"unet_label_emb_0_0": LowRank(*factors((16, 12), 2, 0), 1.0)}, base)
    with pytest.raises(SciArtError) as caught:
        check_fit([lora], bench.layers, "toy")
    assert caught.value.field == "child.safetensors"
    assert caught.value.message == f"fits no layer of toy{made_for}; its first layer is unet_label_emb_0_0"
