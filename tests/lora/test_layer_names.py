"""Layer names: every layer of the real UNets has one canonical name, and every dialect leads to it."""

from __future__ import annotations

import pytest
import torch
from lora_files import TinyOpenClip, matrices, tiny_clip, tiny_unet

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from benchmarks.widening.layout_writers import ldm_name
from sciart_ext.lora.blocks import group_of
from sciart_ext.lora.keys import parse_key
from sciart_ext.lora.names import layer_name, level_of, unet_name
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers, open_clip_layers

LEVELS = {"sd1": 4, "sdxl": 3}

# diffusers' name → LDM's, from the two published code bases
SD1 = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.1.conv2": "input_blocks.2.0.out_layers.3",
    "down_blocks.0.resnets.1.time_emb_proj": "input_blocks.2.0.emb_layers.1",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q": "input_blocks.1.1.transformer_blocks.0.attn2.to_q",
    "down_blocks.0.attentions.1.proj_in": "input_blocks.2.1.proj_in",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.1.attentions.1.proj_out": "input_blocks.5.1.proj_out",
    "down_blocks.2.attentions.0.transformer_blocks.0.ff.net.0.proj":
        "input_blocks.7.1.transformer_blocks.0.ff.net.0.proj",
    "down_blocks.2.downsamplers.0.conv": "input_blocks.9.0.op",
    "down_blocks.3.resnets.1.conv1": "input_blocks.11.0.in_layers.2",
    "mid_block.resnets.0.conv1": "middle_block.0.in_layers.2",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2": "middle_block.1.transformer_blocks.0.ff.net.2",
    "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
    "up_blocks.0.resnets.2.conv_shortcut": "output_blocks.2.0.skip_connection",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0":
        "output_blocks.3.1.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.resnets.0.conv2": "output_blocks.6.0.out_layers.3",
    "up_blocks.2.upsamplers.0.conv": "output_blocks.8.2.conv",
    "up_blocks.3.attentions.2.proj_out": "output_blocks.11.1.proj_out",
    "up_blocks.3.resnets.2.conv1": "output_blocks.11.0.in_layers.2",
}
SDXL = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "down_blocks.0.resnets.1.conv1": "input_blocks.2.0.in_layers.2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.1.attentions.0.proj_in": "input_blocks.4.1.proj_in",
    "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_v": "input_blocks.5.1.transformer_blocks.1.attn2.to_v",
    "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
    "down_blocks.2.attentions.0.transformer_blocks.2.ff.net.0.proj":
        "input_blocks.7.1.transformer_blocks.2.ff.net.0.proj",
    "down_blocks.2.resnets.1.time_emb_proj": "input_blocks.8.0.emb_layers.1",
    "mid_block.attentions.0.transformer_blocks.2.attn1.to_k": "middle_block.1.transformer_blocks.2.attn1.to_k",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0":
        "output_blocks.0.1.transformer_blocks.0.attn2.to_out.0",
    "up_blocks.0.resnets.1.conv_shortcut": "output_blocks.1.0.skip_connection",
    "up_blocks.0.attentions.2.proj_out": "output_blocks.2.1.proj_out",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.1.attentions.2.transformer_blocks.1.ff.net.2": "output_blocks.5.1.transformer_blocks.1.ff.net.2",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.resnets.0.conv1": "output_blocks.6.0.in_layers.2",
    "up_blocks.2.resnets.2.conv2": "output_blocks.8.0.out_layers.3",
}
PAIRS = [("sd1", *item) for item in SD1.items()] + [("sdxl", *item) for item in SDXL.items()]


def is_upsampler(name):
    return name.endswith(".conv") and name.startswith("output_blocks")


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def names(layout):
    """The dotted names of every linear and convolution layer of a UNet of the layout."""
    with torch.device("meta"):
        return list(matrices(tiny_unet(layout)))


@pytest.mark.parametrize(("layout", "diffusers", "ldm"), PAIRS, ids=[f"{row[0]} {row[1]}" for row in PAIRS])
def test_diffusers_and_ldm_names_meet_in_one_name_like_ldms(layout, diffusers, ldm):
    flat = ldm.replace(".", "_")
    canonical = unet_name(diffusers.replace(".", "_"))
    assert canonical == unet_name(flat)
    if is_upsampler(ldm):  # its place in the block varies
        assert canonical == f"output_blocks_{ldm.split('.')[1]}_upsampler_conv"
    else:
        assert canonical == flat


def test_the_list_above_names_layers_that_exist(names, layout):
    assert {"sd1": SD1, "sdxl": SDXL}[layout].keys() <= set(names)


def test_every_layer_has_a_name_of_its_own(names):
    canonical = [unet_name(name.replace(".", "_")) for name in names]
    assert len(set(canonical)) == len(names) > 150
    left = [name for name in canonical if name.startswith(("down_", "up_", "mid_")) or "resnets" in name]
    assert left == [], "diffusers' own words are left over"


def test_every_dialect_leads_to_the_layer_of_the_model(names, layout):
    with torch.device("meta"):
        layers = diffusers_unet_layers(tiny_unet(layout))
    assert sum(not target.is_norm for target in layers.values()) == len(names)
    for name in names:
        canonical = layer_name(f"unet.{name}")
        assert canonical in layers
        assert layer_name("lora_unet_" + name.replace(".", "_")) == canonical
        assert layer_name(f"base_model.model.{name}") == canonical or not name.startswith(("down", "mid", "up"))
        if layout == "sdxl":
            assert layer_name("lora_unet_" + ldm_name(name).replace(".", "_")) == canonical


def test_a_target_is_the_module_of_its_name(layout):
    unet = tiny_unet(layout)
    layers = diffusers_unet_layers(unet)
    for name, module in matrices(unet).items():
        target = layers[layer_name(f"unet.{name}")]
        assert target.module is module
        assert target.weight() is module.weight
        assert target.bracket is unet
        assert target.can_branch


NORMS = {"down_blocks.0.resnets.0.norm1": "input_blocks_1_0_in_layers_0", "conv_norm_out": "out_0",
         "mid_block.resnets.1.norm2": "middle_block_2_out_layers_0", "up_blocks.1.attentions.0.norm":
         "output_blocks_3_1_norm", "down_blocks.1.attentions.1.transformer_blocks.0.norm3":
         "input_blocks_5_1_transformer_blocks_0_norm3"}


@pytest.mark.parametrize("name", NORMS)
def test_norms_have_the_names_of_ldm_too(name):
    unet = tiny_unet("sd1")
    target = diffusers_unet_layers(unet)[f"unet_{NORMS[name]}"]
    assert target.module is unet.get_submodule(name)
    assert target.weight() is target.module.weight and target.bias().weight() is target.module.bias
    assert layer_name("lora_unet_" + name.replace(".", "_")) == f"unet_{NORMS[name]}"


def test_every_parameter_of_the_unet_can_be_reached(layout):
    unet = tiny_unet(layout)
    reached = {id(target.weight()) for one in diffusers_unet_layers(unet).values() for target in (one, one.bias())}
    assert {name for name, parameter in unet.named_parameters() if id(parameter) not in reached} == set()


def test_names_that_are_canonical_stay_as_they_are(names):
    for name in names:
        canonical = unet_name(name.replace(".", "_"))
        assert unet_name(canonical) == canonical


def test_the_text_models_have_transformers_names():
    expected = {f"te1_text_model_encoder_layers_{n}_{name}" for n in range(2) for name in (
        "self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_out_proj", "mlp_fc1", "mlp_fc2")}
    norms = {f"te1_text_model_encoder_layers_{n}_layer_norm{i}" for n in range(2) for i in (1, 2)}
    assert set(clip_layers(tiny_clip(), "te1")) == expected | norms | {"te1_text_model_final_layer_norm"}
    assert set(open_clip_layers(TinyOpenClip(), "te1")) == expected | norms
    for name in expected | norms:
        flat = name.removeprefix("te1_")
        assert layer_name(f"lora_te_{flat}") == layer_name(f"lora_te1_{flat}") == name
        assert layer_name(f"lora_te2_{flat}") == name.replace("te1_", "te2_")


@pytest.mark.parametrize("stem", ["vae.decoder.conv_in", "lora_prior_unet_down", "transformer.x", "controlnet.conv_in"])
def test_other_parts_of_a_model_have_no_name(stem):
    assert layer_name(stem) is None
    assert parse_key(f"{stem}.lora_A.weight") is None


@pytest.mark.parametrize(("ending", "part"), [
    (".lora_down.weight", "down"), (".lora_up.weight", "up"), (".lora_A.weight", "down"), (".lora_B.weight", "up"),
    (".lora_A.default.weight", "down"), (".lora.up.weight", "up"), (".lora_linear_layer.down.weight", "down"),
    (".alpha", "alpha"), (".scale", "scale"),
])
def test_the_end_of_a_key_tells_the_part(ending, part):
    assert parse_key(f"unet.mid_block.resnets.0.conv1{ending}") == ("unet_middle_block_0_in_layers_2", part)


@pytest.mark.parametrize("key", [
    "unet.mid_block.resnets.0.conv1.weight", "unet.mid_block.resnets.0.conv1.lora_C.weight", "lora_unet_.lora_A.bias",
    "unet.mid_block.resnets.0.conv1.lora_A.a.b.weight", ".lora_A.other.weight", ".alpha", "", "lora_mid.weight",
])
def test_other_keys_are_not_guessed_at(key):
    assert parse_key(key) is None


@pytest.mark.parametrize(("layer", "block"), [
    ("unet_input_blocks_0_0", "in"), ("unet_input_blocks_11_0_in_layers_2", "in"), ("unet_input_blocks_3_0_op", "in"),
    ("unet_middle_block_1_proj_in", "mid"), ("unet_output_blocks_2_upsampler_conv", "out"), ("unet_out_2", "out"),
    ("unet_time_embed_0", None), ("unet_label_emb_0_0", None), ("te1_text_model_encoder_layers_0_mlp_fc1", None),
    ("te2_text_model_encoder_layers_0_mlp_fc1", None),
])
def test_the_block_of_a_layer(layer, block):
    assert group_of(layer) == block


@pytest.mark.parametrize(("name", "level"), [
    ("conv_in", 0), ("conv_out", 0), ("down_blocks.0.resnets.1.conv1", 0), ("down_blocks.0.downsamplers.0.conv", 1),
    ("down_blocks.1.attentions.0.proj_in", 1), ("down_blocks.2.downsamplers.0.conv", 3),
    ("down_blocks.3.resnets.0.conv1", 3), ("mid_block.resnets.0.conv1", 3), ("up_blocks.0.resnets.0.conv1", 3),
    ("up_blocks.0.upsamplers.0.conv", 2), ("up_blocks.1.attentions.0.proj_in", 2), ("up_blocks.3.resnets.2.conv1", 0),
])
def test_the_level_of_a_layer_of_sd1(name, level):
    assert level_of(layer_name(f"unet.{name}"), 4) == level


def test_the_level_is_how_often_the_grid_was_halved(layout):
    """Measured in the real UNet: the size of what each convolution gives."""
    unet, sizes, handles = tiny_unet(layout), {}, []
    for name, module in matrices(unet).items():
        if isinstance(module, torch.nn.Conv2d):
            handles.append(module.register_forward_hook(
                lambda module, args, output, name=name: sizes.__setitem__(name, output.shape[-1])))
    added = {"text_embeds": torch.zeros(1, 8), "time_ids": torch.zeros(1, 6)} if layout == "sdxl" else None
    with torch.no_grad():
        unet(torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 3, 12), added_cond_kwargs=added)
    assert len(sizes) > 40
    for name, size in sizes.items():
        assert 16 >> level_of(layer_name(f"unet.{name}"), LEVELS[layout]) == size, name
