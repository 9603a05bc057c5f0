"""What a step of the standalone costs on a GPU: nothing in it waits for the device while its gates stay, and an update
of the guidance once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets

from .marks import needs_pretended_gpu
from .painting import SETTINGS, loras_of, moved_pipeline, painted

pytestmark = [needs_pretended_gpu, pytest.mark.usefixtures("one_thread")]

STEPS = replace(SETTINGS, steps=4, sampler="Euler")
ALIKE = [{"name": "child", "weight": 0.6}]
DIFFER = [*ALIKE, {"name": "watercolor", "weight": 0.6, "apply_to": "cond"}]
HALVES = [{**ALIKE[0], "region": [0, 0, 0.5, 1]}, {"name": "science", "weight": 0.6, "region": [0.5, 0, 1, 1]}]
SUBJECTS = [{"name": "child", "weight": 0.8, "subject": "rocket"},
            {"name": "watercolor", "weight": 0.8, "subject": "robot"}, {"name": "science", "weight": 0.5}]


BOXES = [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
"""of both subjects, so that there is no look ahead, which takes most of the time"""


def of_subjects(compose, boxes=(None, None), **more):
    loras = [{**lora, **({"region": box} if box else {})} for lora, box in zip(SUBJECTS, boxes)]
    return {"loras": [*loras, SUBJECTS[2]], "compose": compose, **more}


def steered(boxes=(None, None), **guidance):
    return of_subjects("contrastive", boxes, guidance=guidance)


RECIPES = {
    "merged": {"loras": ALIKE, "execution": "merge"}, "branched": {"loras": ALIKE, "execution": "branch"},
    "rows that differ": {"loras": DIFFER}, "composite": {"loras": DIFFER, "compose": "composite"},
    "spatial": {"loras": DIFFER, "compose": "spatial"}, "regions": {"loras": HALVES, "compose": "regions"},
    "regions in one row": {"loras": HALVES, "compose": "regions", "composition": {"rows": "one"}},
    "masked": of_subjects("masked", BOXES),
}
COMBINED = {f"{method}, {rows}": {"loras": loras, "combine": method} for method in ("ties", "orthogonal")
            for rows, loras in (("alike", [*ALIKE, {"name": "watercolor", "weight": 0.6}]), ("rows differ", DIFFER))}
STEERED = {
    "masks": steered(until=0), "mixture alone": steered(BOXES, until=0, masks=False),
    "attention in a box": steered([[0, 0, 0.5, 1], None], until=0, regions="attention", opacity="0.7"),
}


@pytest.fixture(scope="module")
def pipe():
    return moved_pipeline()


class Seen(Exception):
    """So many steps as a test looks at have been made."""


def waits_after_steps(gpu, count, make):
    """At the end of each of the first steps of what make(on_step) makes."""
    seen = []

    def on_step(*_):
        seen.append(counts.waits.copy())
        if len(seen) == count:
            raise Seen

    with gpu.counting() as counts, pytest.raises(Seen):
        make(on_step)
    return seen


def waits_of_a_step(gpu, pipe, recipe, settings=STEPS):
    """Those of the third of four steps, for the first ones prepare what the others use; of a picture with a fifth of
    the LoRAs' layers."""
    _, before, after = waits_after_steps(
        gpu, 3, lambda on_step: painted(pipe, recipe, settings, every=5, on_step=on_step))
    return after - before


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DPM++ 3M SDE", "Heun", "DPM2 a", "LMS", "LCM",
                                     "DDIM", "PLMS", "UniPC"])
def test_no_step_of_a_sampler_waits(gpu, pipe, sampler):
    assert not waits_of_a_step(gpu, pipe, RECIPES["merged"], replace(STEPS, sampler=sampler))


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_while_the_gates_stay(gpu, pipe, name):
    assert not waits_of_a_step(gpu, pipe, RECIPES[name])


@pytest.mark.parametrize("name", COMBINED)
def test_no_step_of_combined_loras_waits_while_the_gates_stay(gpu, pipe, name):
    assert not waits_of_a_step(gpu, pipe, COMBINED[name])


@pytest.mark.parametrize("name", STEERED)
def test_no_steered_step_without_update_waits(gpu, pipe, name):
    assert not waits_of_a_step(gpu, pipe, STEERED[name])


@pytest.mark.parametrize(("updates", "offload"), [(1, False), (2, True)])
def test_a_step_waits_once_for_each_update_for_what_its_loss_is_and_whether_its_gradient_is_finite(
        gpu, pipe, updates, offload):
    waits = waits_of_a_step(gpu, pipe, steered(BOXES, until=1, refine={"0.5": updates}, offload=offload))
    assert sum(waits.values()) == updates
    assert {place.partition(":")[0] for _, place in waits} == {"guidance/guide.py"}


@pytest.mark.parametrize("noises", [1, 3])
def test_the_look_ahead_waits_once(gpu, pipe, noises):
    def of_first_step(**guidance):
        seen, = waits_after_steps(gpu, 1, lambda on_step: painted(
            pipe, steered(until=0, strength=0, noises=noises, **guidance), replace(STEPS, steps=2), every=5,
            on_step=on_step))
        return seen

    assert sum((of_first_step() - of_first_step(masks=False)).values()) == 1


def test_the_look_ahead_of_masks_in_one_row_waits_once(gpu, pipe):
    def of_first_step(boxes):
        seen, = waits_after_steps(gpu, 1, lambda on_step: painted(
            pipe, of_subjects("masked", boxes), replace(STEPS, steps=2), every=5, on_step=on_step))
        return seen

    ahead = of_first_step((None, None)) - of_first_step(BOXES)
    assert sum(count for (_, place), count in ahead.items() if place.startswith("guidance/")) == 1


def test_what_a_gradient_needs_later_is_not_on_the_device_meanwhile(gpu, pipe):
    def peak(offload):
        gpu.memory.peak = gpu.memory.live
        painted(pipe, steered(BOXES, masks=False, offload=offload),
                replace(STEPS, steps=1, width=128, height=128))
        return gpu.memory.peak

    assert peak(True) < peak(False)


def test_no_step_of_a_batch_of_sets_waits_though_its_words_and_latents_are_watched(gpu, pipe):
    recipe = parse_recipe({"loras": DIFFER})
    _, before, after = waits_after_steps(gpu, 3, lambda on_step: run_sets(
        pipe, recipe, STEPS, loras_of(recipe), range(4), {}, words=["rocket", "robot"],
        on_step=on_step))
    assert not after - before
