"""The recipe: what is refused and how, what is accepted, and that its text forms read back."""

from __future__ import annotations

import json

import pytest
from wrong_recipes import WRONG

from sciart_ext.errors import SciArtError, did_you_mean
from sciart_ext.recipe import Recipe, dump_recipe, is_off, parse_recipe, recipe_to_text

FULL = {
    "loras": [
        {"name": "child", "schedule": [[0.0, 0.2], [0.5, 0.65]], "curve": "cosine", "te_weight": 0.6,
         "blocks": {"in": 1.0, "out": 0.5}, "apply_to": "cond", "hires": {"weight": 0.4}},
        {"role": "watercolor", "weight": -0.5, "hires": {"schedule": [[0.0, 1.0], [1.0, 0.0]], "curve": "step"}},
        {"name": "수채화, \"quoted\": x", "weight": 0.0},
    ],
    "roles": {"watercolor": "my_watercolor"},
    "combine": "dare-ties",
    "combining": {"density": 0.3, "seed": 7},
    "execution": "branch",
    "memory_limit_mb": 512.0,
}


@pytest.mark.parametrize(("recipe", "field", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_recipe_is_refused_naming_the_field(recipe, field, message):
    with pytest.raises(SciArtError) as caught:
        parse_recipe(recipe)
    assert caught.value.field == field
    assert message in caught.value.message
    assert str(caught.value) == f"{field}: {caught.value.message}"


def test_the_table_of_wrong_recipes_is_long_and_has_no_double():
    assert len(WRONG) >= 40
    assert len({row[0] for row in WRONG}) == len(WRONG)


def test_a_full_recipe_reads_back_from_its_text():
    recipe = parse_recipe(FULL)
    assert dump_recipe(recipe) == FULL
    assert parse_recipe(recipe_to_text(recipe)) == recipe
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_the_text_is_one_line_without_defaults():
    recipe = parse_recipe({"loras": [{"name": "a", "weight": 1, "curve": "linear", "apply_to": "both"}],
                           "enabled": True, "compose": "merge"})
    assert recipe_to_text(recipe) == '{"loras":[{"weight":1.0,"name":"a"}]}'


def test_a_parsed_recipe_is_taken_as_it_is():
    recipe = parse_recipe(FULL)
    assert parse_recipe(recipe) is recipe


def test_a_recipe_cannot_be_changed():
    recipe = parse_recipe(FULL)
    with pytest.raises(TypeError):
        recipe.enabled = False


def test_the_given_data_is_not_changed():
    given = json.loads(json.dumps(FULL))
    parse_recipe(given)
    assert given == FULL


def test_a_disabled_recipe_needs_no_loras():
    assert parse_recipe({"enabled": False}) == Recipe(enabled=False)


def test_a_preset_alone_is_a_recipe():
    assert parse_recipe({"preset": "science-imagination"}).preset == "science-imagination"


def test_schedules_are_read_from_text_and_sorted():
    recipe = parse_recipe({"loras": [{"name": "a", "schedule": "0.65@0.5, 0.2@0"}]})
    assert recipe.loras[0].schedule == [[0.0, 0.2], [0.5, 0.65]]
    assert recipe.loras[0].schedule_text() == "0.2@0, 0.65@0.5"
    assert recipe.loras[0].at(0.25) == pytest.approx(0.425)


def test_the_largest_weight_is_by_magnitude():
    assert parse_recipe({"loras": [{"name": "a", "schedule": "0.2@0, -0.9@1"}]}).loras[0].largest() == -0.9


def test_explicit_null_means_not_given():
    recipe = parse_recipe({"loras": [{"name": "a", "weight": 1, "schedule": None, "te_weight": None, "hires": None}]})
    assert recipe == parse_recipe({"loras": [{"name": "a", "weight": 1}]})


@pytest.mark.parametrize("value", [None, "", "  ", "null", {"enabled": False}, '{"enabled": false}'])
def test_these_leave_the_host_alone(value):
    assert is_off(value)


@pytest.mark.parametrize("value", [{}, {"enabled": True}, {"loras": []}, "not json", "[]", 0, False, {"enabled": 0}])
def test_these_do_not_and_are_then_checked(value):
    assert not is_off(value)


def test_an_unknown_word_gets_the_nearest_known_one_and_a_short_list():
    text = did_you_mean("chid", ["child", *(f"n{i:02}" for i in range(20))])
    assert text.startswith("did you mean 'child'? accepted: child, n00")
    assert text.endswith("and 9 more")
    assert did_you_mean("x", []) == "accepted: (nothing is available)"
