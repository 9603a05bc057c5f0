"""LoRA files as people bring them: what is odd about one leaves the rest of it working, or is refused by its name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lora_files import factors, pair, save, tiny_clip, tiny_unet

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.errors import SciArtError
from sciart_ext.lora.adapter_config import adapter_config
from sciart_ext.lora.file import LoraFile, inspect_lora, load_lora
from sciart_ext.mixer.fit import check_fit
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers

STEM = "lora_unet_mid_block_attentions_0_proj_in"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
LAYER = "unet_middle_block_1_proj_in"


def both(path: Path) -> LoraFile:
    """The file loaded, after its list says the same of it."""
    lora = load_lora(path)
    assert inspect_lora(path) == lora.report()
    return lora


def refused(path: Path) -> str:
    with pytest.raises(SciArtError) as caught:
        load_lora(path)
    with pytest.raises(SciArtError) as listed:
        inspect_lora(path)
    assert str(listed.value) == str(caught.value)
    return str(caught.value)


STRAYS = {
    "a scale of CLIP": {"logit_scale": torch.tensor(4.6)},
    "a counter of steps": {"global_step": torch.tensor([100])},
    "counters in a row": {"steps": torch.arange(7)},
    "truths": {"is_trained": torch.ones(3, dtype=torch.bool)},
    "positions": {"text_model.embeddings.position_ids": torch.arange(77)[None]},
    "a third text encoder": pair("lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
    "a third text encoder of diffusers": pair("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q"),
    "OneTrainer's output of an embedding": {"bundle_emb.word.clip_l_out": torch.ones(2, 12)},
    "a condition of LCM": pair("lora_unet_time_embedding_cond_proj"),
}


@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_part_leaves_the_lora_working(name, tmp_path):
    lora = both(save(tmp_path / "kim.safetensors", {**pair(), **STRAYS[name]}))
    assert list(lora.layers) == [LAYER]
    assert lora.strays == tuple(sorted(STRAYS[name]))
    first = min(STRAYS[name])
    assert lora.notes() == [f"kim: {first} belongs to no layer and was left out" if len(STRAYS[name]) == 1 else
                            f"kim: 2 tensors belong to no layer and were left out (first: {first})"]
    assert lora.report()["notes"] == lora.notes()


@pytest.mark.parametrize("stray", [3, 0.5, "a text", None, True, torch.arange(5)])
def test_a_stray_value_leaves_a_pickle_working(stray, tmp_path):
    torch.save({**pair(alpha=2.0), "epoch": stray}, tmp_path / "a.pt")
    lora = both(tmp_path / "a.pt")
    assert lora.layers[LAYER].scale == 1.0
    assert lora.strays == (() if isinstance(stray, (str, bool, type(None))) else ("epoch",))


def test_an_embedding_bundled_by_onetrainer_works_without_its_output(tmp_path):
    words = {f"bundle_emb.word.{name}": torch.ones(2, 12) for name in ("clip_l", "clip_g", "clip_l_out", "clip_g_out")}
    lora = both(save(tmp_path / "a.safetensors", {**pair(), **words}))
    assert set(lora.embeddings["word"]) == {"clip_l", "clip_g"}
    assert lora.strays == ("bundle_emb.word.clip_g_out", "bundle_emb.word.clip_l_out")


@pytest.mark.parametrize("key", [f"{STEM}.lora_C.weight", f"{STEM}.weight", f"{STEM}.lora_mid.bias",
                                 "unet.down_blocks.0.resnets.0.conv1.weight", f"{TEXT}.bias"])
def test_a_part_of_a_layer_that_is_not_known_is_refused(key, tmp_path):
    assert "unknown key" in refused(save(tmp_path / "a.safetensors", {**pair(), key: torch.ones(4, 4)}))


def test_a_lora_for_what_is_not_known_does_not_act_by_its_text_encoder_alone(tmp_path):
    state = {**pair(TEXT), **pair("transformer.newest_blocks.0.attention.to_q")}
    assert "unknown key 'transformer.newest" in refused(save(tmp_path / "a.safetensors", state))


@pytest.mark.parametrize("name", ["lokr", "a full difference", "a bias"])
def test_an_infinite_alpha_counts_only_where_it_is_used(name, tmp_path):
    infinite = torch.tensor(100000.0).half()
    state = {"lokr": {f"{STEM}.lokr_w1": torch.ones(2, 2), f"{STEM}.lokr_w2": torch.ones(4, 3)},
             "a full difference": {f"{STEM}.diff": torch.ones(8, 6)}, "a bias": {f"{STEM}.diff_b": torch.ones(8)}}[name]
    plain = both(save(tmp_path / "b.safetensors", state)).layers
    found = both(save(tmp_path / "a.safetensors", {**state, f"{STEM}.alpha": infinite})).layers
    assert math.isinf(infinite) and found.keys() == plain.keys()
    for layer, delta in found.items():
        weight = torch.zeros(delta.shape)
        assert torch.equal(delta.of(weight), plain[layer].of(weight))


@pytest.mark.parametrize("alpha", [math.inf, -math.inf])
def test_an_infinite_alpha_of_factors_is_refused(alpha, tmp_path):
    assert "alpha is" in refused(save(tmp_path / "a.safetensors", pair(alpha=torch.tensor(alpha))))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.uint8])
def test_alpha_is_one_number_of_any_shape_and_precision(shape, dtype, tmp_path):
    lora = both(save(tmp_path / "a.safetensors", pair(alpha=torch.full(shape, 4, dtype=dtype))))
    assert lora.layers[LAYER].scale == 2.0


def test_two_adapters_in_one_file_are_refused(tmp_path):
    state = {f"{STEM}.lora_{side}.{name}.weight": torch.ones(4, 4) for side in "AB" for name in ("first", "second")}
    assert "occurs twice under different names" in refused(save(tmp_path / "a.safetensors", state))


# What a LoRA was trained on: (layer, its shape in the file)
VARIANTS = {
    "trained on an inpainting model": ("lora_unet_conv_in", (8, 9, 3, 3)),
    "trained on InstructPix2Pix": ("lora_unet_conv_in", (8, 8, 3, 3)),
    "of a model that gives eight channels": ("lora_unet_conv_out", (8, 8, 3, 3)),
}


def written(stem, shape, seed=0):
    down, up = factors(shape, 2, seed)
    return {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_of_another_variant_is_left_out_with_a_note(name, tmp_path):
    unet = tiny_unet("sd1")
    layers = diffusers_unet_layers(unet)
    stem, shape = VARIANTS[name]
    good = written(STEM, (16, 16, 1, 1))
    lora = both(save(tmp_path / "a.safetensors", {**good, **written(stem, shape)}))
    layer = next(one for one in lora.layers if one != LAYER)
    note, = check_fit([lora], layers, "toy")
    assert note == (f"a: {layer} has shape {shape}, the layer of toy has {tuple(layers[layer].weight().shape)}; it was "
                    "left out")
    assert Mixer(unet, layers, [lora]).layer_names == [LAYER]
    alone = both(save(tmp_path / "b.safetensors", written(stem, shape)))
    with pytest.raises(SciArtError, match=rf"b.safetensors: {layer} has shape"):
        check_fit([alone], layers, "toy")


def test_another_shape_elsewhere_is_refused(tmp_path):
    state = {**written("lora_unet_conv_in", (8, 9, 3, 3)), **written(STEM, (24, 24, 1, 1))}
    with pytest.raises(SciArtError, match=rf"{LAYER} has shape \(24, 24, 1, 1\), the layer of toy has"):
        check_fit([both(save(tmp_path / "a.safetensors", state))], diffusers_unet_layers(tiny_unet("sd1")), "toy")


def test_a_convolutions_down_may_be_a_matrix(tmp_path):
    stem, unet = "lora_unet_mid_block_resnets_0_conv1", tiny_unet("sd1")
    state = written(stem, (16, 16, 3, 3))
    kernels = both(save(tmp_path / "a.safetensors", state))
    flat = both(save(tmp_path / "b.safetensors", {key: tensor.flatten(1) for key, tensor in state.items()}))
    layers = diffusers_unet_layers(unet)
    assert check_fit([flat], layers, "toy") == []
    x, text, outputs = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 12), []
    for lora in (kernels, flat):
        with torch.no_grad(), Mixer(unet, layers, [lora]) as mixer:
            mixer.set_gates([[1.0]])
            outputs.append(unet(x, 7, text).sample)
    assert torch.equal(*outputs) and not torch.equal(outputs[0], unet(x, 7, text).sample)


@pytest.mark.parametrize("stem", ["lora_te2_text_projection", "text_encoder_2.text_projection"])
def test_the_projection_of_sdxls_second_text_encoder_acts(stem, tmp_path):
    from transformers import CLIPTextModelWithProjection

    encoder = CLIPTextModelWithProjection(tiny_clip().config).eval()
    lora = both(save(tmp_path / "a.safetensors", written(stem, (12, 12))))
    layers, words = clip_layers(encoder, "te2"), torch.tensor([[48, 3, 4, 49]])
    assert check_fit([lora], layers, "toy") == []
    with torch.no_grad():
        plain = encoder(words).text_embeds
        with Mixer(encoder, layers, [lora]) as mixer:
            mixer.set_gates([[1.0]])
            found = encoder(words).text_embeds
        delta = lora.layers["te2_text_projection"]
        encoder.text_projection.weight += delta.up @ delta.down
        expected = encoder(words).text_embeds
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(plain, found)


PEFT = {f"base_model.model.mid_block.attentions.0.proj_in.lora_{side}.weight": torch.ones(shape)
        for side, shape in (("A", (2, 16)), ("B", (16, 2)))}
MORE = {
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa: the model's weights were replaced"),
    "pissa, fast": ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is pissa_niter_16"),
    "olora": ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
    "corda": ({"init_lora_weights": "corda"}, "init_lora_weights is corda"),
    "lora_ga": ({"init_lora_weights": "lora_ga"}, "init_lora_weights is lora_ga"),
    "loftq": ({"init_lora_weights": "loftq"}, "fits only the quantised model"),
    "in capitals": ({"init_lora_weights": "PiSSA"}, "init_lora_weights is PiSSA"),
    "kasa": ({"kasa_config": {"beta": 1e-4}}, "kasa_config is set"),
    "whole layers": ({"modules_to_save": ["conv_in"]}, "modules_to_save is set: whole layers"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices is set"),
    "repeated": ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication is set"),
    "parameters": ({"target_parameters": ["weight"]}, "target_parameters is set"),
    "activated": ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is set"),
    "biases": ({"bias": "all"}, "bias is all"),
    "dora": ({"use_dora": True}, "use_dora is true, but unet_middle_block_1_proj_in has no magnitude"),
    "another tuner": ({"peft_type": "ADALORA"}, "peft_type is ADALORA; supported are"),
}
HARMLESS = [{"init_lora_weights": name} for name in (True, False, "gaussian", "eva", "orthogonal", "mica")] + [
    {"fan_in_fan_out": True}, {"modules_to_save": None}, {"bias": "none"}, {"peft_type": "LORA"}, {"loftq_config": {}},
    {"layers_to_transform": [1]}, {"lora_bias": False}]


def peft_file(folder, config, way):
    """A file of PEFT's names, and where its configuration is."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
    if way == "within":
        named = {key.replace("base_model.model.", "unet."): tensor for key, tensor in PEFT.items()}
        text = json.dumps({f"unet.{key}": value for key, value in config.items()})
        return save(folder / "kim.safetensors", named, {"lora_adapter_metadata": text})
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    if way == "pickled":
        torch.save(PEFT, folder / "adapter_model.bin")
        return folder / "adapter_model.bin"
    return save(folder / f"{'adapter_model' if way == 'beside' else 'kim'}.safetensors", PEFT)


WAYS = ["within", "beside", "beside, renamed", "pickled"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MORE)
def test_what_peft_did_beside_the_factors_is_refused_by_name(name, way, tmp_path):
    config, told = MORE[name]
    assert told in refused(peft_file(tmp_path, config, way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("config", HARMLESS, ids=str)
def test_other_settings_of_peft_change_nothing(config, way, tmp_path):
    assert both(peft_file(tmp_path, config, way)).layers[LAYER].scale == 2.0


def test_a_configuration_beside_is_not_of_files_that_peft_did_not_write(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"init_lora_weights": "pissa"}', encoding="utf-8")
    assert both(save(tmp_path / "kim.safetensors", pair())).layers[LAYER].scale == 1.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["pissa", "olora"])
def test_an_adapter_that_peft_converted_is_what_it_does(how, tmp_path):
    """Refused as it is; saved again as PEFT offers, exactly what the training changed."""
    peft = pytest.importorskip("peft")
    unet = tiny_unet("sdxl")
    targets = {target.module: name for name, target in diffusers_unet_layers(unet).items()}
    original = {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}
    config = peft.LoraConfig(r=2, lora_alpha=4, init_lora_weights=how, target_modules=["to_k"])
    model = peft.get_peft_model(unet, config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = how
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "as it is")
    assert f"init_lora_weights is {how}" in refused(tmp_path / "as it is" / "adapter_model.safetensors")
    layers = {name: (module.base_layer.weight + module.get_delta_weight("default")).detach()
              for name, module in unet.named_modules() if hasattr(module, "get_delta_weight")}
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=tmp_path / "initial")
    lora = both(tmp_path / "converted" / "adapter_model.safetensors")
    assert len(lora.layers) == len(layers) > 5
    for name, trained in layers.items():
        delta = lora.layers[targets[unet.get_submodule(name).base_layer]]
        whole = original[f"{name}.weight"]
        torch.testing.assert_close(delta.of(whole), trained - whole, atol=1e-5, rtol=1e-4)


def test_the_configuration_is_read_from_the_file_before_it_is_looked_for_beside(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"r": 1}', encoding="utf-8")
    within = {"lora_adapter_metadata": '{"unet.r": 2}'}
    assert adapter_config(tmp_path / "adapter_model.safetensors", within, ()) == {"unet.r": 2}
    assert adapter_config(tmp_path / "adapter_model.safetensors", {}, ()) == {"r": 1}
