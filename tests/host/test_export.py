"""A diffusers model of the tiny world's architecture makes the same pictures in the WebUI, with and without a LoRA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import difference, with_recipe
from server import ONE_THREAD, HostServer

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.export import export_webui
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline

PROMPT = "a rocket and a robot in space"
# The host decodes and encodes in its own code: no pixel may be further off, of 255.
LARGEST, MEAN = 3, 0.25


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Untrained: random weights show a wrong name as well as trained ones do."""
    from toy_world import write_untrained

    return write_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    export_webui(model, models, "sciart-tiny")
    with HostServer(models=models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD) as server:
        yield server


# Not DPM++ 2M Karras: diffusers rounds its timesteps to whole numbers, the host does not.
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
@pytest.mark.parametrize("weight", [0.0, 0.8])
def test_host_and_standalone_make_the_same_picture(exported: HostServer, model: Path, sampler: str, weight: float):
    settings = Settings(PROMPT, negative_prompt="planet", steps=12, seed=11, sampler=sampler, cfg_scale=5.0)
    given = {"loras": [{"name": "untrained", "schedule": [[0, weight / 2], [1, weight]]}]}
    recipe = parse_recipe(given)
    alone = generate(load_pipeline(model, device="cpu"), recipe, settings, load_loras(recipe, model / "loras"))
    given["loras"][0]["name"] = "sciart-tiny-untrained"
    hosted = exported.txt2img(prompt=PROMPT, negative_prompt="planet", steps=12, seed=11, sampler_name=sampler,
                              cfg_scale=5.0, width=128, height=128, **with_recipe(given))
    assert hosted.status == 200, hosted.text
    largest, mean = difference(np.asarray(alone.image), hosted.pictures[0])
    assert largest <= LARGEST and mean <= MEAN, f"largest {largest}, mean {mean:.3f}"
    assert np.asarray(alone.image).std() > 10
