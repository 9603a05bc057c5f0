"""A diffusers model under the names of the LDM code; that the WebUI loads it is shown in tests/host/test_export.py."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.cli import main
from sciart_ext.errors import SciArtError
from sciart_ext.standalone.export import ldm_config, ldm_tensors, unet_key, vae_key


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, _ = write_random_model(tmp_path_factory.mktemp("tiny"))
    return folder


def parameters(folder):
    return sum(value.numel() for part in ("unet", "vae", "text_encoder")
               for value in load_file(next((folder / part).glob("*.safetensors"))).values())


def test_every_parameter_gets_a_name_of_its_own(model):
    tensors = dict(ldm_tensors(model))
    assert len(list(ldm_tensors(model))) == len(tensors)
    assert sum(value.numel() for value in tensors.values()) == parameters(model)
    prefixes = {key.split(".")[0] for key in tensors}
    assert prefixes == {"model", "first_stage_model", "cond_stage_model"}


@pytest.mark.parametrize(("key", "expected"), [
    ("conv_in.weight", "input_blocks.0.0.weight"),
    ("time_embedding.linear_2.bias", "time_embed.2.bias"),
    ("down_blocks.1.resnets.0.conv1.weight", "input_blocks.4.0.in_layers.2.weight"),
    ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0.bias",
     "input_blocks.2.1.transformer_blocks.0.attn2.to_out.0.bias"),
    ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
    ("mid_block.resnets.1.norm2.weight", "middle_block.2.out_layers.0.weight"),
    ("mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"),
    ("up_blocks.0.resnets.2.conv_shortcut.weight", "output_blocks.2.0.skip_connection.weight"),
    ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
    ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
    ("conv_norm_out.bias", "out.0.bias"),
])
def test_unet_names(key, expected):
    assert unet_key(key, [False, True, True, True]) == expected


@pytest.mark.parametrize(("key", "expected"), [
    ("encoder.conv_in.weight", "encoder.conv_in.weight"),
    ("encoder.down_blocks.1.resnets.0.conv_shortcut.bias", "encoder.down.1.block.0.nin_shortcut.bias"),
    ("encoder.down_blocks.2.downsamplers.0.conv.weight", "encoder.down.2.downsample.conv.weight"),
    ("decoder.up_blocks.0.resnets.1.norm1.weight", "decoder.up.3.block.1.norm1.weight"),
    ("decoder.up_blocks.1.upsamplers.0.conv.bias", "decoder.up.2.upsample.conv.bias"),
    ("decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
    ("encoder.mid_block.resnets.1.conv2.weight", "encoder.mid.block_2.conv2.weight"),
    ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
    ("quant_conv.weight", "quant_conv.weight"),
])
def test_autoencoder_names(key, expected):
    assert vae_key(key, levels=4) == expected


def test_a_parameter_of_another_architecture_is_refused():
    with pytest.raises(SciArtError, match="add_embedding"):
        unet_key("add_embedding.linear_1.weight", [True])


def test_the_configuration_says_what_the_model_is(model, tmp_path):
    config = ldm_config(model, tmp_path)["model"]["params"]
    unet = config["unet_config"]["params"]
    assert (unet["model_channels"], unet["channel_mult"]) == (32, [1, 2, 2, 2])
    assert unet["attention_resolutions"] == [1, 2, 4] and unet["context_dim"] == 64
    assert config["scale_factor"] == pytest.approx(0.18215)
    assert config["first_stage_config"]["params"]["ddconfig"]["ch_mult"] == [1, 1, 2, 2]


def test_the_command_writes_checkpoint_configuration_text_folder_and_loras(model, tmp_path, capsys):
    assert main(["export-webui", str(tmp_path), "--model", str(model), "--name", "toy"]) == 0
    printed = capsys.readouterr().out.split()
    expected = {"Stable-diffusion/toy.safetensors", "Stable-diffusion/toy.yaml", "Lora/toy-child.safetensors",
                "Lora/toy-watercolor.safetensors", "Lora/toy-science.safetensors"}
    assert set(printed) == {str(tmp_path / name) for name in expected}
    config = json.loads((tmp_path / "Stable-diffusion" / "toy.yaml").read_text(encoding="utf-8"))
    text = config["model"]["params"]["cond_stage_config"]["params"]["version"]
    assert {path.name for path in (tmp_path / "Stable-diffusion" / "toy-text").iterdir()} == {
        "config.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
    assert text == str((tmp_path / "Stable-diffusion" / "toy-text").resolve())


def test_what_is_no_model_is_refused(tmp_path, capsys):
    assert main(["export-webui", str(tmp_path), "--model", str(tmp_path)]) == 2
    assert "model_index.json" in capsys.readouterr().err
