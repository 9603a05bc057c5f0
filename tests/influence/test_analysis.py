"""The influence of LoRAs on a picture of the trained tiny model, in numbers and sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.influence.analysis import analyse, of_every_set
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("red-striped-rocket", "watercolor")


@pytest.fixture(scope="module")
def runs():
    recipe = parse_recipe({"loras": [{"name": NAMES[0], "weight": 1}, {"name": NAMES[1], "weight": 0.7}]})
    found = {}
    run_sets(load_pipeline(MODEL, device="cpu"), recipe, Settings("a red striped rocket in space", steps=8, seed=777),
             load_loras(recipe, MODEL / "loras"), range(4), found)
    return found


def test_the_shares_make_the_whole_change_and_the_maps_are_of_the_picture(runs):
    influence = analyse(NAMES, *of_every_set(runs, 2))
    assert influence.residual < 1e-10 and float(influence.shares.sum()) == pytest.approx(1)
    assert influence.heat.shape == (2, 128, 128) and influence.curves.alone.shape == (2, 9)
    assert influence.phases.shape == (3, 2) and influence.phases.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert influence.bends.shape == (2, 8)


def test_a_sentence_for_each_lora_says_how_much_when_and_where(runs):
    influence = analyse(NAMES, *of_every_set(runs, 2))
    first, second = influence.sentences()
    assert first.startswith(f"red-striped-rocket: {100 * float(influence.shares[0]):.0f} % of the change, ")
    assert second.startswith("watercolor: ") and second.endswith("all over")


def test_runs_that_do_not_belong_to_these_loras_are_refused(runs):
    trajectories, pictures = of_every_set(runs, 2)
    with pytest.raises(ValueError, match="3 LoRAs need 8 runs, got 4"):
        analyse(["a", "b", "c"], trajectories, pictures)
    with pytest.raises(ValueError, match="2 LoRAs need 4 runs, got 3"):
        analyse(NAMES, trajectories[:3], pictures)


def test_pictures_that_are_all_alike_have_no_shares():
    influence = analyse(["a"], torch.zeros(2, 3, 4, 2, 2), np.zeros((2, 16, 16, 3), np.uint8))
    assert influence.sentences() == ["a: 0 % of the change, at no step, nowhere"]
