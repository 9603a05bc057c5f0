"""Whole pictures of a random model on the pretended GPU are the CPU's, to within 1 of 255."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets

from . import PretendedGpu
from .marks import needs_pretended_gpu
from .painting import SETTINGS, loras_of, moved_pipeline, painted, pipeline

pytestmark = [needs_pretended_gpu, pytest.mark.usefixtures("one_thread")]

CHANGING = [{"name": "child", "schedule": [[0, 0.2], [1, 0.9]]}, {"name": "watercolor", "weight": 0.6},
            {"name": "science", "weight": 0.5, "apply_to": "cond"}]
TWO = [{"name": "child", "schedule": [[0, 0.2], [1, 0.9]]}, {"name": "watercolor", "weight": 0.6}]
SUBJECTS = [{"name": "child", "weight": 0.8, "subject": "rocket"},
            {"name": "watercolor", "weight": 0.8, "subject": "robot"}, {"name": "science", "weight": 0.5}]
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
    "contrastive": {"loras": SUBJECTS, "compose": "contrastive",
                    "guidance": {"refine": {"0": 2}, "offload": True, "show": True}},
    "contrastive in regions": {"loras": [{**SUBJECTS[0], "region": [0, 0, 0.5, 1]},
                                         {**SUBJECTS[1], "region": [0.5, 0, 1, 1]}, SUBJECTS[2]],
                               "compose": "contrastive"},
}
COMBINED = {
    **{method: {"loras": TWO, "combine": method}
       for method in ("orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune")},
    "orthogonal where rows differ": {"loras": CHANGING, "combine": "orthogonal"},
    "ties where rows differ": {"loras": CHANGING, "combine": "ties"},
}


WHOLE = {"merge", "merged weights", "branches", "rows that differ"}
"""with all layers of their LoRAs; compositions with a third, for they put the same rows together"""


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def moved_pipe():
    return moved_pipeline()


@pytest.fixture(scope="module")
def plain(pipe):
    return painted(pipe, {"enabled": False})


def pixels(picture):
    return np.asarray(picture).astype(int)


def assert_same(there, here):
    assert np.abs(pixels(there) - pixels(here)).max() <= 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_picture_is_the_cpus(pipe, moved_pipe, plain, name):
    every = 1 if name in WHOLE else 3
    here = painted(pipe, RECIPES[name], every=every)
    with PretendedGpu():
        there = painted(moved_pipe, RECIPES[name], every=every)
    assert_same(there.image, here.image)
    assert np.abs(pixels(here.image) - pixels(plain.image)).mean() > 1, "the LoRAs must matter here"
    assert there.infotext == here.infotext and there.notes == here.notes
    if here.subjects is not None:
        assert np.abs(pixels(there.subjects) - pixels(here.subjects)).mean() < 1


@pytest.mark.parametrize("name", COMBINED)
def test_a_picture_of_combined_loras_is_the_cpus(pipe, moved_pipe, plain, name):
    """Of a fifth of their layers, for each is combined by itself."""
    here = painted(pipe, COMBINED[name], every=5)
    with PretendedGpu():
        assert_same(painted(moved_pipe, COMBINED[name], every=5).image, here.image)
    assert np.abs(pixels(here.image) - pixels(plain.image)).mean() > 0.5, "the LoRAs must matter here"


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "Heun", "DPM++ SDE", "DPM fast", "LCM", "DDIM CFG++",
                                     "PLMS", "UniPC"])
def test_a_picture_of_every_kind_of_sampler_is_the_cpus(pipe, moved_pipe, sampler):
    settings = replace(SETTINGS, steps=3, sampler=sampler)
    here = painted(pipe, RECIPES["merge"], settings, every=5)
    with PretendedGpu():
        assert_same(painted(moved_pipe, RECIPES["merge"], settings, every=5).image, here.image)


def runs_of(pipe, recipe, sets, **options):
    recipe, runs = parse_recipe(recipe), {}
    run_sets(pipe, recipe, SETTINGS, loras_of(recipe), sets, runs, **options)
    return runs


def test_a_batch_of_sets_is_the_cpus(pipe, moved_pipe):
    here = runs_of(pipe, {"loras": CHANGING}, [0, 1, 6, 7], words=["rocket"])
    with PretendedGpu():
        there = runs_of(moved_pipe, {"loras": CHANGING}, [0, 1, 6, 7], words=["rocket"])
    for one, run in here.items():
        assert_same(there[one].picture, run.picture)
        assert {there[one].trajectory.device.type, there[one].words.device.type} == {"cpu"}
        assert torch.allclose(there[one].trajectory, run.trajectory, atol=1e-3)
        assert torch.allclose(there[one].words, run.words, atol=1e-4)
    assert np.abs(pixels(here[7].picture) - here[0].picture).mean() > 1


def test_a_steered_batch_of_sets_is_the_cpus(pipe, moved_pipe):
    here = runs_of(pipe, RECIPES["contrastive in regions"], [3, 7])
    with PretendedGpu():
        there = runs_of(moved_pipe, RECIPES["contrastive in regions"], [3, 7])
    for one, run in here.items():
        assert_same(there[one].picture, run.picture)


@pytest.mark.parametrize("name", ["merged weights", "branches", "contrastive in regions"])
def test_the_model_is_left_as_it_was(moved_pipe, name):
    unet = moved_pipe.unet
    with PretendedGpu():
        before = {name: (tensor, tensor.clone()) for name, tensor in unet.named_parameters()}
        painted(moved_pipe, RECIPES[name], replace(SETTINGS, steps=1))
        for name, tensor in unet.named_parameters():
            assert tensor is before[name][0] and torch.equal(tensor, before[name][1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
