"""The tiny model and its LoRAs: shape, size, what they paint, and that other tools read them.

Shares of pictures are measured by `python -m benchmarks.world`; here a few pictures show that nothing is broken.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import transformers
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from benchmarks.tinyworld.judging import megabytes
from benchmarks.tinyworld.sampling import Pictures
from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import load_lora
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras, model_layers
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL
from sciart_ext.world.drawing import draw
from sciart_ext.world.oracle import Oracle, as_tensor
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, PLACES, STYLES, random_scene

LORAS = [name.replace(" ", "-") for name in (*STYLES, *INDIVIDUALS)]
SEEDS = range(4)


@pytest.fixture(scope="module")
def pictures():
    """Of fewer steps than the benchmark's: enough to see what is painted."""
    return Pictures(MODEL, steps=6)


@pytest.fixture(scope="module")
def oracle():
    return Oracle.load()


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(MODEL, device="cpu")


def test_all_of_it_is_small():
    assert megabytes() <= 20


def test_every_transformers_reads_the_text_encoder(pipe):
    stored = load_file(MODEL / "text_encoder" / "model.safetensors")
    read = {"text_model." + name.removeprefix("text_model."): tensor
            for name, tensor in pipe.text_encoder.state_dict().items() if not name.endswith("position_ids")}
    assert stored.keys() == read.keys()
    assert all(torch.equal(tensor.float(), read[name]) for name, tensor in stored.items())


def test_a_text_encoder_that_this_transformers_cannot_read_is_refused(tmp_path, pipe):
    folder = shutil.copytree(MODEL, tmp_path / "model")
    file = folder / "text_encoder" / "model.safetensors"
    stored = load_file(file)
    save_file({name.removeprefix("text_model."): tensor for name, tensor in stored.items()}, file, {"format": "pt"})
    if transformers.__version__.startswith("4."):
        with pytest.raises(SciArtError, match=r"model: .*was written by transformers 5"):
            load_pipeline(folder, device="cpu")
    else:
        read = load_pipeline(folder, device="cpu").text_encoder.state_dict()
        assert all(torch.equal(tensor, read[name]) for name, tensor in pipe.text_encoder.state_dict().items())


def test_objects_of_the_prompt_are_painted(pictures, oracle):
    found = [reading.count(kind) for kind, words in KINDS.items()
             for reading in oracle.read(pictures.make(f"a {words} in space", SEEDS[:2]))]
    assert np.mean(np.array(found) > 0) >= 0.75


@pytest.mark.parametrize("name", INDIVIDUALS)
def test_an_individuals_lora_paints_it_and_the_base_does_not(pictures, oracle, name):
    def share(weights):
        return np.mean([reading.count(individual=name) > 0
                        for reading in oracle.read(pictures.make(f"a {name} in space", SEEDS, weights))])

    assert share({name: 1.0}) >= 0.75
    assert share({}) <= 0.4


def robots(pictures, oracle, weights):
    """Readings of one in each place."""
    return oracle.read(np.concatenate([pictures.make(f"a robot {place}", SEEDS[:1], weights)
                                       for place in PLACES.values()]))


@pytest.fixture(scope="module")
def plain_robots(pictures, oracle):
    return robots(pictures, oracle, {})


@pytest.mark.parametrize("style", STYLES)
def test_a_styles_lora_paints_in_it(pictures, oracle, plain_robots, style):
    def strength(readings):
        return np.mean([reading.styles[style] for reading in readings])

    assert strength(robots(pictures, oracle, {style: 1.0})) >= 0.4 > 0.2 >= strength(plain_robots)


def test_latents_have_unit_scale(pipe):
    """The scale factor, which the WebUI's configuration carries too, is the measured one."""
    rng = np.random.default_rng(77)
    drawn = np.stack([draw(random_scene(rng)).picture for _ in range(48)])
    with torch.no_grad():
        latents = pipe.vae.encode(as_tensor(drawn)).latent_dist.mean * pipe.vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=0.1)


def test_the_text_encoders_output_has_a_mean_to_divide_by(pipe):
    """The WebUI's emphasis does."""
    ids = pipe.tokenizer("a rocket in space", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        assert pipe.text_encoder(ids)[0].mean().abs() > 0.02


@pytest.mark.parametrize("name", LORAS)
def test_each_lora_fits_and_reaches_unet_and_text_encoder(pipe, name):
    lora = load_lora(MODEL / "loras" / f"{name}.safetensors")
    report = lora.report()
    assert 4 <= report["rank"] <= 8 and report["unet_layers"] and report["text_encoder_layers"]
    assert set(lora.layers) <= set(model_layers(pipe))


def test_diffusers_reads_the_loras_too():
    pipe = load_pipeline(MODEL, device="cpu")
    recipe = parse_recipe({"loras": [{"name": "watercolor", "weight": 0.8}]})
    settings = Settings("a rocket in space", steps=4, seed=3, sampler="Euler", cfg_scale=6.0)
    ours = generate(pipe, recipe, settings, load_loras(recipe, MODEL / "loras")).image
    plain = generate(pipe, parse_recipe({"enabled": False}), settings, []).image
    pipe.load_lora_weights(MODEL / "loras", weight_name="watercolor.safetensors", adapter_name="watercolor")
    pipe.set_adapters(["watercolor"], [0.8])
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    theirs = pipe(settings.prompt, num_inference_steps=4, guidance_scale=6.0,
                  generator=torch.Generator().manual_seed(3)).images[0]
    # theirs encodes the negative prompt with the LoRA too, as ours does by default
    assert np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).max() <= 2
    assert np.abs(np.asarray(ours, float) - np.asarray(plain, float)).mean() > 5
