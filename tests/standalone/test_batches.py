"""Pictures of several seeds in one batch: each as it is alone, with an infotext of its own; progress, and stopping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, generate_batch, load_loras
from sciart_ext.standalone.infotext import parse_infotext
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot", "noise", steps=3, seed=5, cfg_scale=3, width=64, height=64)
CHANGING = {"loras": [{"name": "child", "schedule": [[0, 0.2], [1, 0.9]]}, {"name": "watercolor", "weight": 0.6}]}
COMPOSED = {
    "rows that differ": {"loras": [{**CHANGING["loras"][0], "apply_to": "cond"}, CHANGING["loras"][1]]},
    "switch": {**CHANGING, "compose": "switch", "composition": {"period": 1}},
    "composite": {**CHANGING, "compose": "composite"}, "spatial": {**CHANGING, "compose": "spatial"},
    "regions": {"loras": [{"name": "child", "weight": 0.8, "region": [0, 0, 0.5, 1]},
                          {"name": "watercolor", "weight": 0.6, "region": [0.5, 0, 1, 1]}], "compose": "regions"},
}
STEERED = {"loras": [{"name": "red-striped-rocket", "weight": 0.8, "subject": "rocket"},
                     {"name": "yellow-visor-robot", "weight": 0.8, "subject": "robot"}],
           "compose": "contrastive", "guidance": {"refine": {"0": 2}, "show": True}}
SEEDS = [5, 9, 6]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


def batch(tiny, recipe, seeds=SEEDS, settings=SETTINGS, **options):
    recipe = parse_recipe(recipe)
    return generate_batch(tiny[0], recipe, settings, load_loras(recipe, tiny[1]), seeds, **options)


def alone(tiny, recipe, seed, settings=SETTINGS):
    recipe = parse_recipe(recipe)
    return generate(tiny[0], recipe, replace(settings, seed=seed), load_loras(recipe, tiny[1]))


def pixels(picture):
    return np.asarray(picture.image).astype(int)


def assert_each_is_as_alone(tiny, recipe, settings=SETTINGS):
    made = batch(tiny, recipe, settings=settings)
    singles = [alone(tiny, recipe, seed, settings) for seed in SEEDS]
    for seed, picture, single in zip(SEEDS, made, singles, strict=True):
        assert np.abs(pixels(picture) - pixels(single)).max() <= 2
        assert picture.infotext == single.infotext and parse_infotext(picture.infotext)["Seed"] == str(seed)
        assert picture.notes == single.notes
    assert np.abs(pixels(made[0]) - pixels(made[1])).mean() > 2
    return made, singles


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DPM++ 3M SDE", "Restart", "UniPC", "LCM"])
def test_each_picture_is_the_one_of_its_seed(tiny, sampler):
    assert_each_is_as_alone(tiny, CHANGING, replace(SETTINGS, sampler=sampler))


@pytest.mark.parametrize("name", COMPOSED)
def test_each_composed_picture_is_the_one_of_its_seed(tiny, name):
    assert_each_is_as_alone(tiny, COMPOSED[name])


def test_each_steered_picture_is_the_one_of_its_seed_and_has_its_own_sheet():
    model = load_pipeline(MODEL, device="cpu"), MODEL / "loras"
    made, singles = assert_each_is_as_alone(model, STEERED)
    sheets = [np.asarray(picture.subjects).astype(int) for picture in made]
    for sheet, single in zip(sheets, singles):
        assert np.abs(sheet - np.asarray(single.subjects)).mean() < 1
    assert np.abs(sheets[0] - sheets[1]).mean() > 1


def test_no_seeds_and_seeds_out_of_range_are_refused(tiny):
    for seeds in ([], [1, -1], [2**63]):
        with pytest.raises(SciArtError) as caught:
            batch(tiny, CHANGING, seeds)
        assert caught.value.field == "seed"


@pytest.mark.parametrize(("sampler", "steps", "expected"), [
    ("Euler", 3, [(1, 3), (2, 3), (3, 3)]), ("Heun", 2, [(1, 2), (2, 2)]), ("PLMS", 3, [(1, 3), (2, 3), (3, 3)]),
])
def test_progress_is_told_of_the_whole_batch(tiny, sampler, steps, expected):
    told = []
    batch(tiny, CHANGING, settings=replace(SETTINGS, sampler=sampler, steps=steps),
          on_step=lambda *done: told.append(done))
    assert told == expected


def test_with_steps_of_its_own_choice_pictures_are_made_one_by_one(tiny):
    told, settings = [], replace(SETTINGS, sampler="DPM adaptive", cfg_scale=1, steps=2)
    made = batch(tiny, {"enabled": False}, [5, 9], settings, on_step=lambda *done: told.append(done))
    assert np.array_equal(pixels(made[1]), pixels(alone(tiny, {"enabled": False}, 9, settings)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "UniPC"])
def test_what_progress_raises_ends_the_work(tiny, sampler):
    calls = []
    handle = tiny[0].unet.register_forward_pre_hook(lambda *_: calls.append(1))

    def stop(done, steps):
        if done == 2:
            calls.clear()
            raise KeyboardInterrupt

    settings = replace(SETTINGS, sampler=sampler, steps=6)
    try:
        with pytest.raises(KeyboardInterrupt):
            batch(tiny, CHANGING, settings=settings, on_step=stop)
        assert calls == []
    finally:
        handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny[0].unet.modules())


def test_a_schedule_type_that_does_nothing_is_noted_on_the_picture(tiny):
    picture, = batch(tiny, CHANGING, [5], replace(SETTINGS, sampler="ddim", scheduler="karras"))
    assert "scheduler Karras: DDIM spaces its steps itself" in picture.notes
    told = parse_infotext(picture.infotext)
    assert (told["Sampler"], told["Schedule type"]) == ("DDIM", "Karras")


@pytest.mark.parametrize(("sampler", "scheduler", "told"), [
    ("k_dpmpp_2m", "Automatic", ("DPM++ 2M", "Karras")), ("euler", "Automatic", ("Euler", "Automatic")),
    ("DPM++ 2M SDE Beta", "Automatic", ("DPM++ 2M SDE", "Beta")),
])
def test_infotext_names_sampler_and_schedule_type_as_the_webui_does(tiny, sampler, scheduler, told):
    picture, = batch(tiny, CHANGING, [5], replace(SETTINGS, steps=1, sampler=sampler, scheduler=scheduler))
    found = parse_infotext(picture.infotext)
    assert (found["Sampler"], found["Schedule type"]) == told
