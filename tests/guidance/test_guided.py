"""Guided pictures on diffusers: rows, determinism, what is left behind, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=3, seed=5, cfg_scale=3, width=96, height=64)
SUBJECTS = [{"name": "child", "weight": 0.6, "subject": "rocket", "trigger": "red"},
            {"name": "science", "weight": 0.6, "subject": "robot"}]
STYLE = {"name": "watercolor", "weight": 0.5}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


@pytest.fixture(scope="module")
def trained():
    """A model whose attention tells words apart."""
    return load_pipeline(MODEL, device="cpu"), MODEL / "loras"


def guided(tiny, loras=SUBJECTS, settings=SETTINGS, **guidance):
    recipe = parse_recipe({"loras": loras, "compose": "contrastive",
                           "guidance": {"strength": 100, **guidance}})
    return np.asarray(generate(tiny[0], recipe, settings, load_loras(recipe, tiny[1])).image).astype(int)


@pytest.fixture(scope="module")
def first(tiny):
    """A picture that several tests look at."""
    return guided(tiny)


def test_guidance_changes_the_picture_and_repeats(tiny, first):
    assert np.array_equal(first, guided(tiny))
    assert np.abs(first - guided(tiny, strength=0)).mean() > 0.5
    assert np.abs(first - guided(tiny, masks=False)).mean() > 0.5
    assert np.abs(first - guided(tiny, loras=[*SUBJECTS, STYLE])).mean() > 0.5


@pytest.mark.parametrize("guidance", [{"masks": False}, {"opacity": [[0, 0]]}], ids=["no masks", "opacity 0"])
def test_without_updates_and_own_rows_it_is_the_merge_of_a_prompt_with_the_triggers(tiny, guidance):
    recipe = parse_recipe({"loras": [*SUBJECTS, STYLE]})
    settings = replace(SETTINGS, prompt="a red rocket and a robot")
    merged = np.asarray(generate(tiny[0], recipe, settings, load_loras(recipe, tiny[1])).image).astype(int)
    assert np.abs(guided(tiny, [*SUBJECTS, STYLE], strength=0, **guidance) - merged).max() <= 2


def test_subjects_that_the_mixture_mixes_up_have_a_share_of_their_own(tiny):
    pair = [SUBJECTS[0], {**SUBJECTS[1], "subject": "rocket", "trigger": "blue"}]
    halves = [{**pair[0], "region": [0, 0, 0.5, 1]}, {**pair[1], "region": [0.5, 0, 1, 1]}]
    thirds = [{**halves[0], "subject": "red"}, {**halves[1], "subject": "robot"},
              {**STYLE, "subject": "rocket", "region": [0, 0, 1, 0.5]}]
    two, three = "a rocket and a rocket", "a red rocket and a robot"
    for loras, prompt in ((pair, two), (halves, two), (thirds, three)):  # alike in attention, in words; more than two
        settings = replace(SETTINGS, prompt=prompt)
        first = guided(tiny, loras, settings)
        assert np.array_equal(first, guided(tiny, loras, settings, opacity="0.5"))
        assert np.abs(first - guided(tiny, loras, settings, opacity_crowded="0.5")).mean() > 0.1
    others = [{**lora, "region": half["region"]} for lora, half in zip(SUBJECTS, halves)]
    assert np.array_equal(guided(tiny, others), guided(tiny, others, opacity_crowded="0.5"))


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "UniPC"])
def test_it_works_with_every_sampler(tiny, sampler):
    settings = Settings("a rocket and a robot", steps=3, seed=5, cfg_scale=3, width=64, height=64, sampler=sampler)
    assert np.abs(guided(tiny, settings=settings) - guided(tiny, settings=settings, strength=0)).mean() > 0.1


def test_without_cfg_there_are_no_negative_rows_and_it_is_guided_all_the_same(tiny):
    settings = replace(SETTINGS, cfg_scale=1)
    first = guided(tiny, settings=settings)
    assert np.array_equal(first, guided(tiny, settings=replace(settings, negative_prompt="")))
    assert np.abs(first - guided(tiny, settings=settings, strength=0, masks=False)).mean() > 0.5


def test_the_pipeline_is_left_as_it_was(tiny):
    before = {name: tensor.clone() for name, tensor in tiny[0].unet.state_dict().items()}
    guided(tiny)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny[0].unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny[0].unet.modules())


def test_a_subject_that_is_not_in_the_prompt_is_refused(tiny):
    with pytest.raises(SciArtError, match=r"loras\[0\].subject: 'submarine' is not in the prompt"):
        guided(tiny, [{**SUBJECTS[0], "subject": "submarine"}, SUBJECTS[1]])


def test_the_subjects_sheet_is_made_when_asked_for_and_changes_nothing(tiny):
    def made(**guidance):
        recipe = parse_recipe({"loras": SUBJECTS, "compose": "contrastive", "guidance": guidance})
        return generate(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]))

    plain, shown = made(), made(show=True)
    assert plain.subjects is None
    assert shown.subjects.height > 2 * 100 and np.array_equal(np.asarray(plain.image), np.asarray(shown.image))


def test_a_region_says_where_a_subject_is(trained):
    halves = [{**SUBJECTS[0], "region": [0, 0, 0.5, 1]}, {**SUBJECTS[1], "region": [0.5, 0, 1, 1]}]
    found, boxed = guided(trained, strength=0), guided(trained, halves, strength=0)
    assert np.abs(found - boxed).mean() > 0.5
    turned = [{**SUBJECTS[0], "region": [0.5, 0, 1, 1]}, {**SUBJECTS[1], "region": [0, 0, 0.5, 1]}]
    assert np.abs(boxed - guided(trained, turned, strength=0)).mean() > 0.5
    inside = guided(trained, halves, strength=0, regions="attention")
    assert np.abs(inside - boxed).mean() > 0.5 and np.abs(inside - found).mean() > 0.5


def test_updates_hold_a_subject_in_its_region(tiny):
    halves = [{**SUBJECTS[0], "region": [0, 0, 0.5, 1]}, {**SUBJECTS[1], "region": [0.5, 0, 1, 1]}]
    turned = [{**SUBJECTS[0], "region": [0.5, 0, 1, 1]}, {**SUBJECTS[1], "region": [0, 0, 0.5, 1]}]
    assert np.abs(guided(tiny, halves, masks=False) - guided(tiny, turned, masks=False)).mean() > 0.1


@pytest.mark.parametrize(("strength", "message"), [
    (0, "compose: out of memory: 5 rows at once do not fit, 2 would; accepted: compose merge, a smaller picture"),
    (100, "guidance.strength: out of memory in the gradient that an update needs; accepted: 0 (no updates), a "
          "smaller picture"),
])
def test_what_does_not_fit_in_memory_is_refused_with_what_does(tiny, first, strength, message):
    def check(module, args):
        if torch.is_grad_enabled() if strength else len(args[0]) > 2:
            torch.empty(1 << 55, dtype=torch.uint8)

    with tiny[0].unet.conv_in.register_forward_pre_hook(check), pytest.raises(SciArtError) as refused:
        guided(tiny, strength=strength)
    assert str(refused.value) == message
    assert np.array_equal(guided(tiny), first)
