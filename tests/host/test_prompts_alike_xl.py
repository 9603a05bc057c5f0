"""Prompts of SDXL: both text encoders of the standalone engine read them as the host's do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import MAX_DIFFERENCE, difference
from server import HERE, HostServer

pytest.importorskip("diffusers")

from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline

OPEN_CLIP = "conditioner.embedders.1.model."
PROMPTS = {
    "plain": ("a red rocket and a robot in space", "planet"),
    "emphasised": ("a (red:1.4) rocket and a [[robot]] in space", "(planet:1.3), star"),
    "no negative prompt": ("a (red:1.2) rocket in space", ""),
    "chunks": ("a red rocket BREAK a (robot:1.3) in space, " + "a star, " * 30, "planet"),
    "and": ("a red rocket AND a robot in space :0.6", "planet"),
    "edited": ("a ([red:blue:2] rocket:1.2) in [space|the sea]", "[planet:star:0.5]"),
    "lora": ("a (rocket:1.2) in space <lora:child-xl:0.8:0.5>", "planet"),
}


@pytest.fixture(scope="module")
def pipe(tiny_models: Path, tmp_path_factory):
    """tiny-sdxl on diffusers, whose configuration is told here."""
    folder = tmp_path_factory.mktemp("tiny-sdxl")
    open_clip = json.loads((HERE / "probe" / "open_clip_configs" / "sciart-tiny-bigG.json").read_text("utf-8"))
    width, text = open_clip["embed_dim"], open_clip["text_cfg"]

    def encoder(**more) -> CLIPTextConfig:
        return CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_attention_heads=text["heads"],
                              num_hidden_layers=text["layers"], vocab_size=text["vocab_size"], projection_dim=width,
                              eos_token_id=49407, bos_token_id=49406, **more)

    checkpoint = tiny_models / "Stable-diffusion" / "tiny-sdxl.safetensors"
    second = CLIPTextModelWithProjection(encoder(hidden_act="gelu"))
    # by its width, from which diffusers tells the encoders apart in a file, it would be the first
    second.load_state_dict(convert_open_clip_checkpoint(second, load_file(checkpoint), OPEN_CLIP), strict=False)
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4,
                          up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(encoder()), text_encoder_2=second,
        tokenizer=CLIPTokenizer.from_pretrained(tiny_models / "text-encoder-tiny"),
        tokenizer_2=CLIPTokenizer.from_pretrained(tiny_models / "text-encoder-tiny", pad_token="!"),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(32, 64, 128), cross_attention_dim=2 * width,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4, 8),
            transformer_layers_per_block=(1, 2, 3), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=width + 6 * 256),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False).save_pretrained(folder)
    whole = StableDiffusionXLPipeline.from_single_file(checkpoint, config=str(folder), text_encoder_2=second)
    whole.save_pretrained(folder / "whole")
    return load_pipeline(folder / "whole", device="cpu")


@pytest.fixture(scope="module")
def sdxl(host: HostServer):
    host.use_checkpoint("tiny-sdxl.safetensors")
    yield host
    host.use_checkpoint("tiny-sd1.safetensors")


@pytest.mark.parametrize("name", PROMPTS)
def test_host_and_standalone_read_a_prompt_alike(sdxl: HostServer, pipe, name) -> None:
    prompt, negative = PROMPTS[name]
    answer = sdxl.txt2img(prompt=prompt, negative_prompt=negative, steps=4, seed=5, sampler_name="Euler",
                          cfg_scale=5.0, width=64, height=64)
    assert answer.status == 200, answer.text
    off = parse_recipe({"enabled": False})
    settings = Settings(prompt, negative, steps=4, seed=5, sampler="Euler", cfg_scale=5.0)
    picture = generate(pipe, off, settings, load_loras(off, sdxl.data / "models" / "Lora", prompt))
    largest, mean = difference(np.asarray(picture.image), answer.pictures[0])
    assert largest <= MAX_DIFFERENCE, f"largest {largest}, mean {mean:.3f}"
