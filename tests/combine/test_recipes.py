"""Combining in whole pictures: dare-linear that drops nothing is linear, whatever else the recipe does."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.infotext import parse_infotext
from sciart_ext.standalone.models import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket and a robot in space", "planet", steps=2, seed=5, cfg_scale=4, width=64, height=64)
STYLES = [{"name": "child", "schedule": [[0, 0.2], [1, 0.8]]}, {"name": "watercolor", "weight": 0.5}]
RECIPES = {
    "schedule": {"loras": STYLES},
    "blocks and branches": {"loras": [{**STYLES[0], "blocks": {"in": -1, "out": 0.5}}, STYLES[1]],
                            "execution": "branch"},
    "prompt only": {"loras": [{**STYLES[0], "apply_to": "cond"}, STYLES[1]]},
    "little memory": {"loras": STYLES, "memory_limit_mb": 0.5},
    "steered": {"compose": "contrastive", "loras": [
        {"name": "child", "weight": 1, "subject": "rocket", "trigger": "red striped"},
        {"name": "science", "weight": 1, "subject": "robot", "trigger": "yellow visor"}, STYLES[1]]},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder, loras = write_random_model(tmp_path_factory.mktemp("tiny"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


@pytest.fixture(scope="module")
def known():
    """Pictures that several tests look at."""
    return {}


def paint(tiny, given, **more):
    recipe = parse_recipe({**given, **more})
    picture = generate(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]))
    return np.asarray(picture.image).astype(int), picture.infotext


def plain(tiny, known, given):
    """Without combining, painted once."""
    key = json.dumps(given)
    if key not in known:
        known[key] = paint(tiny, given)[0]
    return known[key]


@pytest.mark.parametrize("given", RECIPES.values(), ids=RECIPES)
def test_dare_that_drops_nothing_is_linear(tiny, known, given):
    whole = {"combine": "dare-linear", "combining": {"density": 1}}
    assert np.abs(paint(tiny, given, **whole)[0] - plain(tiny, known, given)).max() <= 2


@pytest.mark.parametrize("method", ["orthogonal", "ties", "dare-ties"])
@pytest.mark.parametrize("given", [RECIPES["prompt only"], RECIPES["steered"]], ids=["prompt only", "steered"])
def test_a_combination_changes_the_picture_and_repeats(tiny, known, given, method):
    first, text = paint(tiny, given, combine=method, combining={"density": 0.3})
    assert np.array_equal(first, paint(tiny, given, combine=method, combining={"density": 0.3})[0])
    assert np.abs(first - plain(tiny, known, given)).mean() > 0.5
    recipe = parse_recipe({**given, "combine": method, "combining": {"density": 0.3}})
    assert parse_recipe(parse_infotext(text)["SciArt"]) == recipe


@pytest.mark.parametrize("method", ["orthogonal", "ties"])
def test_a_set_without_a_lora_is_combined_without_it(tiny, method):
    """Rows of one batch with other LoRAs silent: each is the picture of a recipe that has not got them."""
    given = {"loras": [{"name": name, "weight": 0.6} for name in ("child", "watercolor", "science")], "combine": method}
    recipe = parse_recipe(given)
    runs = {}
    run_sets(tiny[0], recipe, SETTINGS, load_loras(recipe, tiny[1]), [0b111, 0b101, 0b010], runs)
    for one, run in runs.items():
        alone = {**given, "loras": [lora for k, lora in enumerate(given["loras"]) if one >> k & 1]}
        assert np.abs(run.picture.astype(int) - paint(tiny, alone)[0]).max() <= 2
