"""What a step of the standalone costs on a GPU: nothing in it waits for the device while its gates stay."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

from . import PretendedGpu
from .marks import needs_pretended_gpu

pytestmark = [needs_pretended_gpu, pytest.mark.usefixtures("one_thread")]

LORAS = [{"name": "child", "weight": 0.6}, {"name": "watercolor", "weight": 0.6, "apply_to": "cond"}]
PLAIN = {"loras": [LORAS[0]]}
SUBJECTS = [{"name": "red-striped-rocket", "weight": 0.8, "subject": "rocket"},
            {"name": "yellow-visor-robot", "weight": 0.8, "subject": "robot"}, {"name": "science", "weight": 0.5}]
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


def steered(boxes=(None, None), **guidance):
    loras = [{**lora, **({"region": box} if box else {})} for lora, box in zip(SUBJECTS, boxes)]
    return {"loras": [*loras, SUBJECTS[2]], "compose": "contrastive", "guidance": guidance}


@pytest.mark.parametrize("recipe", [
    steered(until=0), steered(until=0, masks=False),
    steered([[0, 0, 0.5, 1], None], until=0, regions="attention", opacity="0.7")],
    ids=["masks", "mixture alone", "attention in a box"])
def test_no_steered_step_without_update_waits(gpu, pipe, recipe):
    assert not waits_of_a_step(gpu, pipe, recipe)


@pytest.mark.parametrize(("updates", "offload"), [(1, False), (3, True)])
def test_a_step_waits_once_for_each_update_for_what_its_loss_is_and_whether_its_gradient_is_finite(
        gpu, pipe, updates, offload):
    waits = waits_of_a_step(gpu, pipe, steered(until=1, refine={"0.5": updates}, offload=offload))
    assert sum(waits.values()) == updates
    assert {place.partition(":")[0] for _, place in waits} == {"guidance/guide.py"}


def test_the_look_ahead_waits_once(gpu, pipe):
    def of_first_step(**guidance):
        settings = Settings("a rocket and a robot", steps=2, seed=5, cfg_scale=3, width=64, height=64)
        recipe, seen = parse_recipe(steered(until=0, **guidance)), []
        loras = load_loras(recipe, MODEL / "loras")
        with gpu.counting() as counts:
            generate(pipe, recipe, settings, loras, on_step=lambda *_: seen.append(counts.waits.copy()))
        return seen[0]

    without = of_first_step(strength=0, masks=False)
    assert sum((of_first_step(strength=0) - without).values()) == 1


def test_what_a_gradient_needs_later_is_not_on_the_device_meanwhile(gpu, pipe):
    def peak(offload):
        settings = Settings("a rocket and a robot", steps=1, seed=5, cfg_scale=3, width=128, height=128)
        recipe = parse_recipe(steered([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], masks=False, offload=offload))
        loras = load_loras(recipe, MODEL / "loras")
        gpu.memory.peak = gpu.memory.live
        generate(pipe, recipe, settings, loras)
        return gpu.memory.peak

    assert peak(True) < peak(False)


def test_no_step_of_a_batch_of_sets_waits_though_its_words_and_latents_are_watched(gpu, pipe):
    settings = Settings("a rocket and a robot", steps=4, seed=5, cfg_scale=3, width=64, height=64,
                        sampler="Euler")
    recipe, seen = parse_recipe({"loras": LORAS}), []
    run_sets(pipe, recipe, settings, load_loras(recipe, MODEL / "loras"), range(4), {}, words=["rocket", "robot"],
             on_step=lambda step, steps: seen.append(gpu.counts.waits.copy()))
    assert not seen[2] - seen[1]
