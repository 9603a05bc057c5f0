"""The influence of LoRAs on a picture of the trained tiny model, in numbers and sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from invented import invented

from sciart_ext.influence.analysis import analyse
from sciart_ext.influence.measures import mass_within
from sciart_ext.influence.runs import Run
from sciart_ext.influence.subsets import ask
from sciart_ext.recipe import parse_recipe
from sciart_ext.report.colour import distances
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("red-striped-rocket", "watercolor")
PROMPT = "a red striped rocket in space"


@pytest.fixture(scope="module")
def runs():
    recipe = parse_recipe({"loras": [{"name": NAMES[0], "weight": 1}, {"name": NAMES[1], "weight": 0.7}]})
    found = {}
    run_sets(load_pipeline(MODEL, device="cpu"), recipe, Settings(PROMPT, steps=8, seed=777),
             load_loras(recipe, MODEL / "loras"), range(4), found, words=["rocket", "space"])
    return found


def test_the_shares_make_the_whole_change_and_the_maps_are_of_the_picture(runs):
    influence = analyse(NAMES, ask(2), runs)
    shares = influence.shares
    assert shares.residual < 1e-10 and float(shares.parts.sum()) == pytest.approx(1)
    assert shares.orders is None and (shares.errors == 0).all()
    assert shares.maps.shape == influence.alone.heat.shape == (2, 128, 128)
    assert influence.alone.curves.shape == (2, 9) and influence.left_out.bends.shape == (2, 8)
    assert shares.phases.shape == (3, 2) and shares.phases.sum(1).tolist() == pytest.approx([1, 1, 1])


def test_effects_are_those_of_each_alone_and_of_each_left_out():
    runs = invented(3)
    influence = analyse("abc", ask(3), runs)
    for k in range(3):
        alone, rest = runs[1 << k], runs[7 ^ 1 << k]
        assert np.allclose(influence.alone.heat[k], distances(alone.picture, runs[0].picture))
        assert np.allclose(influence.left_out.heat[k], distances(rest.picture, runs[7].picture))
        assert torch.allclose(influence.alone.curves[k], (alone.trajectory - runs[0].trajectory).flatten(1).norm(dim=1))
        assert torch.allclose(influence.left_out.curves[k],
                              (runs[7].trajectory - rest.trajectory).flatten(1).norm(dim=1))


def test_only_what_was_asked_is_told():
    runs = invented(3)
    solo = analyse("abc", ask(3, "solo"), {one: runs[one] for one in (0, 1, 2, 4)})
    assert solo.left_out is None and solo.shares is None and solo.sentences()[0].startswith("a: ΔE ")
    left_out = analyse("abc", ask(3, "left-out"), {one: runs[one] for one in (7, 6, 5, 3)})
    assert left_out.alone is None and left_out.sentences()[1].startswith("without b: ΔE ")


def test_shares_of_many_loras_are_estimates_with_an_interval():
    runs, inside = invented(6), []
    exact = analyse("abcdef", ask(6, orders=720), runs).shares
    for seed in range(10):
        question = ask(6, orders=8, seed=seed)
        found = analyse("abcdef", question, {one: runs[one] for one in question.sets})
        assert found.shares.residual < 1e-10 and float(found.shares.parts.sum()) == pytest.approx(1)
        inside += ((found.shares.parts - exact.parts).abs() <= found.shares.errors).tolist()
    assert exact.orders is None and found.shares.orders == 8 and " ± " in found.sentences()[0]
    assert sum(inside) / len(inside) > 0.85


def test_a_sentence_for_each_lora_says_how_much_when_and_where(runs):
    influence = analyse(NAMES, ask(2), runs)
    words = dict(zip(("rocket", "space"), runs[3].words))
    words = {word: torch.nn.functional.interpolate(found[None, None], (128, 128), mode="bilinear")[0, 0]
             for word, found in words.items()}
    first, second = influence.sentences(words)
    assert first.startswith(f"red-striped-rocket: {100 * float(influence.shares.parts[0]):.0f} % of the change, ")
    assert second.startswith("watercolor: ") and second.endswith("all over")


def test_attention_to_a_word_is_highest_where_the_oracle_sees_the_thing(runs):
    from sciart_ext.world.oracle import Oracle

    seen = [one for one in Oracle.load().read([runs[1].picture])[0].objects if one.kind == "rocket"]
    x0, y0, x1, y1 = (value / 8 for value in seen[0].box)
    rocket, space = runs[1].words
    inside = mass_within(rocket - rocket.min(), (x0, y0, x1, y1))
    assert inside > 1.2 * (x1 - x0) * (y1 - y0) / rocket.numel()
    assert inside > mass_within(space - space.min(), (x0, y0, x1, y1))


def test_runs_that_do_not_belong_to_the_question_are_refused():
    runs = invented(2)
    with pytest.raises(ValueError, match=r"no runs of the sets \[4, 6, 5, 7\]"):
        analyse("abc", ask(3), runs)
    with pytest.raises(ValueError, match="2 LoRAs, 3 names"):
        analyse("abc", ask(2), runs)


def test_pictures_that_are_all_alike_have_no_shares():
    runs = {one: Run(torch.zeros(3, 4, 2, 2), np.zeros((16, 16, 3), np.uint8)) for one in range(2)}
    assert analyse("a", ask(1), runs).sentences() == ["a: 0 % of the change, at no step, nowhere"]
