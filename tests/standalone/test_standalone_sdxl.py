"""The engine on a tiny SDXL: two text encoders, pooled embeddings, LoRAs on all three models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from random_model import byte_tokenizer, random_text_encoder, random_vae
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from sciart_ext.cli import main
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras, model_layers
from sciart_ext.standalone.models import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket", "noise", steps=2, seed=5, sampler="Euler", cfg_scale=3, width=64, height=64)
OFF = parse_recipe({"enabled": False})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with the LoRAs all.safetensors (three models) and te2.safetensors (second encoder only)."""
    folder = tmp_path_factory.mktemp("sdxl")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        pipe = build(folder)
        pipe.save_pretrained(folder)
        layers = model_layers(pipe)
        for name, prefixes in (("all", ("unet_", "te1_", "te2_")), ("te2", ("te2_",))):
            save_file(lora_tensors(layers, prefixes), folder / f"{name}.safetensors")
    return folder


def build(folder):
    torch.manual_seed(1)
    encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=514, hidden_size=32, projection_dim=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=77, initializer_factor=4.0, bos_token_id=512,
        eos_token_id=513, pad_token_id=513)).eval()
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64, 64), norm_num_groups=8, cross_attention_dim=64 + 32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
        transformer_layers_per_block=(1, 1, 2), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=32 + 6 * 8).eval()
    return StableDiffusionXLPipeline(
        vae=random_vae(), text_encoder=random_text_encoder(), text_encoder_2=encoder_2, unet=unet,
        tokenizer=byte_tokenizer(folder / "tokenizer"), tokenizer_2=byte_tokenizer(folder / "tokenizer_2"),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False)


def lora_tensors(layers, prefixes):
    tensors = {}
    for name, target in layers.items():
        weight = target.weight()
        if not name.startswith(prefixes) or weight.dim() != 2 or "emb" in name:
            continue
        stem = "lora_" + name
        tensors[f"{stem}.lora_down.weight"] = torch.randn(2, weight.shape[1]) * 0.2
        tensors[f"{stem}.lora_up.weight"] = torch.randn(weight.shape[0], 2) * 0.2
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors


@pytest.fixture(scope="module")
def pipe(folder):
    return load_pipeline(folder, device="cpu")


def pixels(pipe, folder, recipe):
    recipe = parse_recipe(recipe)
    return np.asarray(generate(pipe, recipe, SETTINGS, load_loras(recipe, folder)).image).astype(int)


def test_the_base_picture_is_diffusers_own(pipe, folder):
    scheduler = pipe.scheduler
    pipe.scheduler = EulerDiscreteScheduler.from_config(scheduler.config, timestep_spacing="linspace")
    own = pipe("a rocket", negative_prompt="noise", num_inference_steps=2, guidance_scale=3, width=64, height=64,
               generator=torch.Generator().manual_seed(5)).images[0]
    pipe.scheduler = scheduler
    assert np.abs(pixels(pipe, folder, OFF) - np.asarray(own)).max() <= 1


def test_all_layers_match_and_both_executions_agree(pipe, folder):
    recipe = parse_recipe({"loras": [{"name": "all", "schedule": "0.2@0, 1@1"}]})
    picture = generate(pipe, recipe, SETTINGS, load_loras(recipe, folder))
    assert picture.notes == []
    merged, branched = (pixels(pipe, folder, recipe.copy(update={"execution": how})) for how in ("merge", "branch"))
    assert np.abs(merged - branched).max() <= 2
    assert not np.array_equal(merged, pixels(pipe, folder, OFF))


def test_constant_weights_equal_weights_merged_by_hand(folder):
    recipe = parse_recipe({"loras": [{"name": "all", "weight": 0.7}]})
    mixed = pixels(load_pipeline(folder, device="cpu"), folder, recipe)
    pipe = load_pipeline(folder, device="cpu")
    with torch.no_grad():
        for name, delta in load_loras(recipe, folder)[0].layers.items():
            model_layers(pipe)[name].weight().add_(0.7 * delta.scale * delta.up @ delta.down)
    assert np.abs(mixed - pixels(pipe, folder, OFF)).max() <= 2


def test_a_lora_of_the_second_encoder_alone_acts(pipe, folder):
    recipe = {"loras": [{"name": "te2", "weight": 1}]}
    assert not np.array_equal(pixels(pipe, folder, recipe), pixels(pipe, folder, OFF))


def test_diffusers_loads_a_combined_file_of_all_three_models(pipe, folder, tmp_path):
    for name in ("all", "te2"):  # diffusers passes over the projection's LoRA, whoever wrote it
        tensors = load_file(folder / f"{name}.safetensors")
        save_file({key: tensor for key, tensor in tensors.items() if "text_projection" not in key},
                  tmp_path / f"{name}.safetensors")
    recipe = {"loras": [{"name": "all", "weight": 0.7}, {"name": "te2", "weight": -0.5}], "combine": "ties"}
    assert main(["combine", "all=0.7", "te2=-0.5", "--lora-dir", str(tmp_path), "--method", "ties", "--rank", "4096",
                 "--precision", "fp32", "--quiet", "--out", str(tmp_path / "new" / "combined.safetensors")]) == 0
    other = load_pipeline(folder, device="cpu")
    other.load_lora_weights(tmp_path / "new", weight_name="combined.safetensors")
    other.scheduler = EulerDiscreteScheduler.from_config(other.scheduler.config, timestep_spacing="linspace")
    loaded = other("a rocket", negative_prompt="noise", num_inference_steps=2, guidance_scale=3, width=64, height=64,
                   generator=torch.Generator().manual_seed(5)).images[0]
    own = pixels(pipe, tmp_path, recipe)
    assert np.abs(own - np.asarray(loaded)).max() <= 2
    assert np.abs(own - pixels(pipe, folder, OFF)).mean() > 3
