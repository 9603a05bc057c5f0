"""What a step of the standalone costs on a GPU: nothing in it waits for the device while its gates stay."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

from . import PretendedGpu
from .marks import needs_pretended_gpu

pytestmark = [needs_pretended_gpu, pytest.mark.usefixtures("one_thread")]

LORAS = [{"name": "child", "weight": 0.6}, {"name": "watercolor", "weight": 0.6, "apply_to": "cond"}]
PLAIN = {"loras": [LORAS[0]]}
HALVES = [{**LORAS[0], "region": [0, 0, 0.5, 1]}, {"name": "science", "weight": 0.6, "region": [0.5, 0, 1, 1]}]


@pytest.fixture(scope="module")
def gpu():
    with PretendedGpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def pipe(gpu):
    return load_pipeline(MODEL, device="cpu").to("gpu")


def waits_of_a_step(gpu, pipe, recipe, sampler="Euler"):
    """Those of the third of four steps, for the first ones prepare what the others use."""
    settings = Settings("a rocket and a robot", steps=4, seed=5, cfg_scale=3, width=64, height=64, sampler=sampler)
    recipe, seen = parse_recipe(recipe), []
    generate(pipe, recipe, settings, load_loras(recipe, MODEL / "loras"),
             on_step=lambda step, steps: seen.append(gpu.counts.waits.copy()))
    return seen[2] - seen[1]


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Heun", "DDIM"])
def test_no_step_of_a_sampler_without_noise_waits(gpu, pipe, sampler):
    assert not waits_of_a_step(gpu, pipe, PLAIN, sampler)


@pytest.mark.parametrize("recipe", [
    {"execution": "merge"}, {"execution": "branch"}, {"loras": LORAS}, {"loras": LORAS, "compose": "composite"},
    {"loras": LORAS, "compose": "spatial"}, {"loras": HALVES, "compose": "regions"}, {"combine": "ties"},
    {"loras": LORAS, "combine": "ties"}, {"loras": LORAS, "combine": "orthogonal"}],
    ids=lambda recipe: " ".join([*(str(value) for key, value in recipe.items() if key != "loras"),
                                 *(["rows differ"] if "loras" in recipe else [])]))
def test_no_step_waits_while_the_gates_stay(gpu, pipe, recipe):
    assert not waits_of_a_step(gpu, pipe, {**PLAIN, **recipe})
