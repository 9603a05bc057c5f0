"""Whole pictures of the tiny model on the pretended GPU are the CPU's, to within 1 of 255."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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

SETTINGS = Settings("a rocket and a robot", "blurred", steps=2, seed=5, cfg_scale=3, width=64, height=64)
CHANGING = [{"name": "child", "schedule": [[0, 0.2], [1, 0.9]]}, {"name": "watercolor", "weight": 0.6},
            {"name": "science", "weight": 0.5, "apply_to": "cond"}]
TWO = [{"name": "child", "schedule": [[0, 0.2], [1, 0.9]]}, {"name": "watercolor", "weight": 0.6}]
SUBJECTS = [{"name": "red-striped-rocket", "weight": 0.8, "subject": "rocket"},
            {"name": "yellow-visor-robot", "weight": 0.8, "subject": "robot"}, {"name": "science", "weight": 0.5}]
HALVES = [{"name": "child", "weight": 0.6, "region": [0, 0, 0.5, 1]},
          {"name": "watercolor", "weight": 0.6, "region": [0.5, 0, 1, 1]}, {"name": "science", "weight": 0.5}]

RECIPES = {
    "merge": {"loras": TWO},
    "merged weights": {"loras": TWO, "execution": "merge"},
    "branches": {"loras": TWO, "execution": "branch"},
    "rows that differ": {"loras": CHANGING},
    "switch": {"loras": CHANGING, "compose": "switch", "composition": {"period": 1}},
    "composite": {"loras": CHANGING, "compose": "composite"},
    "spatial": {"loras": CHANGING, "compose": "spatial"},
    "regions": {"loras": HALVES, "compose": "regions", "composition": {"feather": 0.2}},
    "contrastive": {"loras": SUBJECTS, "compose": "contrastive", "guidance": {"refine": {"0": 2}, "show": True}},
    "contrastive in regions": {"loras": [{**SUBJECTS[0], "region": [0, 0, 0.5, 1]}, *SUBJECTS[1:]],
                               "compose": "contrastive", "guidance": {"regions": "attention", "offload": True}},
    **{method: {"loras": TWO, "combine": method}
       for method in ("orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune")},
    "orthogonal rows that differ": {"loras": CHANGING, "combine": "orthogonal"},
    "ties with rows that differ": {"loras": CHANGING, "combine": "ties"},
}


@pytest.fixture(scope="module")
def gpu():
    """One for all pictures, so that the model is moved once."""
    with PretendedGpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def pipes(gpu):
    """The same model here and there."""
    return load_pipeline(MODEL, device="cpu"), load_pipeline(MODEL, device="cpu").to("gpu")


def painted(pipe, recipe, settings=SETTINGS):
    recipe = parse_recipe(recipe)
    return generate(pipe, recipe, settings, load_loras(recipe, MODEL / "loras"))


def pixels(picture):
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("name", RECIPES)
def test_a_picture_is_the_cpus(pipes, name):
    here, there = (painted(pipe, RECIPES[name]) for pipe in pipes)
    plain = painted(pipes[0], {"enabled": False})
    assert np.abs(pixels(there.image) - pixels(here.image)).max() <= 1
    assert np.abs(pixels(here.image) - pixels(plain.image)).mean() > 1, "the LoRAs must matter here"
    assert there.infotext == here.infotext
    if here.subjects is not None:
        assert np.abs(pixels(there.subjects) - pixels(here.subjects)).mean() < 1


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "UniPC"])
def test_a_picture_of_every_kind_of_sampler_is_the_cpus(pipes, sampler):
    settings = Settings("a rocket", steps=3, seed=5, cfg_scale=3, width=64, height=64, sampler=sampler)
    here, there = (painted(pipe, RECIPES["merge"], settings) for pipe in pipes)
    assert np.abs(pixels(there.image) - pixels(here.image)).max() <= 1


def test_a_batch_of_sets_is_the_cpus(pipes):
    recipe, runs = parse_recipe({"loras": CHANGING}), ({}, {})
    for pipe, made in zip(pipes, runs):
        run_sets(pipe, recipe, SETTINGS, load_loras(recipe, MODEL / "loras"), [0, 1, 6, 7], made, words=["rocket"])
    for one, here in runs[0].items():
        there = runs[1][one]
        assert np.abs(there.picture.astype(int) - here.picture).max() <= 1, f"set {one}"
        assert {there.trajectory.device.type, there.words.device.type} == {"cpu"}
        assert torch.allclose(there.trajectory, here.trajectory, atol=1e-3)
        assert torch.allclose(there.words, here.words, atol=1e-4)
    assert np.abs(runs[0][7].picture.astype(int) - runs[0][0].picture).mean() > 1


def test_a_steered_batch_of_sets_is_the_cpus(pipes):
    recipe, runs = parse_recipe(RECIPES["contrastive"]), ({}, {})
    for pipe, made in zip(pipes, runs):
        run_sets(pipe, recipe, SETTINGS, load_loras(recipe, MODEL / "loras"), [3, 7], made)
    for one, here in runs[0].items():
        assert np.abs(runs[1][one].picture.astype(int) - here.picture).max() <= 1, f"set {one}"


def test_the_model_is_left_as_it_was(pipes):
    unet = pipes[1].unet
    before = {name: (tensor, tensor.clone()) for name, tensor in unet.named_parameters()}
    for name in ("merged weights", "branches", "contrastive"):
        painted(pipes[1], RECIPES[name])
    for name, tensor in unet.named_parameters():
        assert tensor is before[name][0] and torch.equal(tensor, before[name][1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
