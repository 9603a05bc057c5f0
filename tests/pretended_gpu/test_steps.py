"""What a step of the standalone costs on a GPU: nothing in it waits for the device while its gates stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from . import PretendedGpu
from .marks import needs_pretended_gpu
from .painting import SETTINGS, moved_pipeline, painted

pytestmark = [needs_pretended_gpu, pytest.mark.usefixtures("one_thread")]

ALIKE = [{"name": "child", "weight": 0.6}]
DIFFER = [*ALIKE, {"name": "watercolor", "weight": 0.6, "apply_to": "cond"}]
HALVES = [{**ALIKE[0], "region": [0, 0, 0.5, 1]}, {"name": "science", "weight": 0.6, "region": [0.5, 0, 1, 1]}]
SUBJECTS = [{**HALVES[0], "subject": "rocket"}, {**HALVES[1], "subject": "robot"}]

RECIPES = {
    "merged": {"loras": ALIKE, "execution": "merge"}, "branched": {"loras": ALIKE, "execution": "branch"},
    "rows that differ": {"loras": DIFFER}, "composite": {"loras": DIFFER, "compose": "composite"},
    "spatial": {"loras": DIFFER, "compose": "spatial"}, "regions": {"loras": HALVES, "compose": "regions"},
    "steered, after its updates": {"loras": SUBJECTS, "compose": "contrastive", "guidance": {"until": 0}},
}
COMBINED = {f"{method}, {rows}": {"loras": loras, "combine": method} for method in ("ties", "orthogonal")
            for rows, loras in (("alike", [*ALIKE, {"name": "watercolor", "weight": 0.6}]), ("rows differ", DIFFER))}


@pytest.fixture(scope="module")
def pipe():
    return moved_pipeline()


def waits_of_a_step(pipe, recipe, sampler="Euler", every=1):
    """Those of the third of four steps, for the first ones prepare what the others use."""
    seen = []
    with PretendedGpu() as gpu:
        painted(pipe, recipe, replace(SETTINGS, steps=4, sampler=sampler), every,
                on_step=lambda step, steps: seen.append(gpu.counts.waits.copy()))
    return seen[2] - seen[1]


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Heun", "DDIM"])
def test_no_step_of_a_sampler_without_noise_waits(pipe, sampler):
    assert not waits_of_a_step(pipe, RECIPES["merged"], sampler)


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_while_the_gates_stay(pipe, name):
    assert not waits_of_a_step(pipe, RECIPES[name])


@pytest.mark.parametrize("name", COMBINED)
def test_no_step_of_combined_loras_waits_while_the_gates_stay(pipe, name):
    assert not waits_of_a_step(pipe, COMBINED[name], every=5)
