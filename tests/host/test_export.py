"""The tiny model, exported, makes the same pictures in the WebUI as standalone, with and without its LoRAs."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import difference, with_recipe
from server import ONE_THREAD, HostServer

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.export import export_webui
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

# Of 255. The host cuts a pixel's value off to a whole number, diffusers rounds: that alone makes a mean of 0.5.
LARGEST, MEAN = 3, 0.6
WEIGHTS = {"no LoRA": {}, "one style": {"child": 0.8}, "preset": {"child": 0.65, "watercolor": 0.55, "science": 0.5},
           "individual": {"red-striped-rocket": 1.0, "watercolor": 0.5}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    export_webui(MODEL, models, "sciart-tiny")
    with HostServer(models=models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD) as server:
        yield server


# Not DPM++ 2M Karras: diffusers rounds its timesteps to whole numbers, the host does not.
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_host_and_standalone_make_the_same_picture(exported: HostServer, sampler: str, weights: dict):
    settings = Settings("a red striped rocket and a robot in space", negative_prompt="planet", steps=12, seed=11,
                        sampler=sampler, cfg_scale=5.0)
    loras = [{"name": name, "schedule": [[0, weight / 2], [1, weight]]} for name, weight in weights.items()]
    recipe = parse_recipe({"enabled": bool(loras), "loras": loras})
    alone = generate(load_pipeline(MODEL, device="cpu"), recipe, settings, load_loras(recipe, MODEL / "loras"))
    given = {"enabled": bool(loras), "loras": [{**lora, "name": f"sciart-tiny-{lora['name']}"} for lora in loras]}
    hosted = exported.txt2img(prompt=settings.prompt, negative_prompt="planet", steps=12, seed=11,
                              sampler_name=sampler, cfg_scale=5.0, width=128, height=128, **with_recipe(given))
    assert hosted.status == 200, hosted.text
    largest, mean = difference(np.asarray(alone.image), hosted.pictures[0])
    assert largest <= LARGEST and mean <= MEAN, f"largest {largest}, mean {mean:.3f}"
    assert np.asarray(alone.image).std() > 10
