"""What is handed over as a recipe is one, which can be kept, planned and drawn, or it is refused in few words."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promises import check_recipe
from strange_recipes import PICTURES, RECIPES, recipe_texts, strange_recipes, url

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import parse_recipe

STEPS = st.one_of(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 1000, 10_000]))
SOMETIMES = st.integers(0, 19).map(lambda number: number == 7)
OFTEN = settings(max_examples=250, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                        HealthCheck.large_base_example])
SELDOM = settings(OFTEN, max_examples=60)


@SELDOM
@given(recipe=RECIPES, steps=STEPS, png=SOMETIMES)
def test_what_is_meant_to_be_valid_is_accepted(recipe, steps, png):
    assert check_recipe(recipe, steps, png) is not None


@OFTEN
@given(value=strange_recipes(), steps=STEPS, png=SOMETIMES)
def test_a_recipe_with_strange_values(value, steps, png):
    check_recipe(value, steps, png)


@OFTEN
@given(text=recipe_texts(), steps=STEPS)
def test_a_text_that_was_spoiled(text, steps):
    check_recipe(text, steps)


@pytest.mark.parametrize("name", PICTURES)
def test_a_mask_of_any_kind(name):
    check_recipe({"compose": "regions", "loras": [{"name": "x", "weight": 1, "region": url(PICTURES[name])}]})


@pytest.mark.parametrize("name", ["huge", "16 bits", "cut short", "nothing", "a GIF", "text that unpacks to more"])
def test_a_mask_that_is_none_is_refused(name):
    with pytest.raises(SciArtError, match=r"mask|accepted"):
        parse_recipe({"compose": "regions", "loras": [{"name": "x", "weight": 1, "region": url(PICTURES[name])}]})
