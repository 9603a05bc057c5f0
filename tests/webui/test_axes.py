"""Axes of an X/Y/Z plot: what a value does to a recipe, whatever the order of the axes; what stands beside the grid."""

from __future__ import annotations

import copy
import itertools

import pytest

from sciart_ext.errors import SciArtError
from sciart_ext.host.webui.axes import EXAMPLE, axes, edited, labels_of
from sciart_ext.presets import PresetStore
from sciart_ext.recipe import parse_recipe

AXES = {axis.label: axis for axis in axes()}
TWO = {"loras": [{"name": "child", "weight": 0.7, "te_weight": 0.4},
                 {"name": "watercolor", "schedule": [[0.0, 0.1], [1.0, 0.6]], "curve": "step"}]}


@pytest.fixture
def store(tmp_path):
    return PresetStore(user_dir=tmp_path)


def cell(store, base, **values):
    return edited(base, [(AXES[label], value) for label, value in values.items()], store)


def test_labels_are_unique_and_each_axis_says_what_it_is():
    assert len(AXES) == len(axes()) == 25
    assert AXES["LoRA 1 weight"].kind is float and AXES["Guidance strength"].kind is float
    assert AXES["Noises"].kind is int
    assert {axis.label for axis in axes() if axis.choices} == {
        "Enabled", "Preset", "Combine", "Compose", *(f"LoRA {k} name" for k in range(1, 5))}


def test_a_weight_replaces_a_schedule_and_a_schedule_a_weight(store):
    schedule = {f"LoRA 1 schedule ({EXAMPLE})": EXAMPLE}
    data = cell(store, TWO, **{"LoRA 2 weight": 0.30000000000000004}, **schedule)
    assert data["loras"] == [{"name": "child", "te_weight": 0.4, "schedule": "0.2@0; 0.65@0.5"},
                             {"name": "watercolor", "weight": 0.3}]
    assert parse_recipe(data).loras[0].schedule == [[0.0, 0.2], [0.5, 0.65]]


def test_a_negative_weight_replaces_a_schedule_of_the_negative_prompt(store):
    data = cell(store, TWO, **{"LoRA 1 weight": 0.3, "LoRA 1 negative weight": 0.1})
    assert data["loras"][0] == {"name": "child", "te_weight": 0.4, "weight": 0.3, "negative": {"weight": 0.1}}
    given = {"loras": [{**TWO["loras"][0], "negative": {"schedule": "0@0, 1@1", "curve": "step", "te_weight": 0.2}}]}
    data = cell(store, given, **{"LoRA 1 negative weight": 0.1})
    assert data["loras"][0]["negative"] == {"weight": 0.1, "te_weight": 0.2}


@pytest.mark.parametrize(("value", "lora"), [
    ("science=50%", {"weight": 0.5}), ("science=0,5", {"weight": 0.5}), ("science=0.2@s1; 1@s5", {
        "schedule": "0.2@s1; 1@s5"}), ("science=0.8:start=5", {"schedule": "0.8:start=5"})])
def test_weights_by_name_are_read_as_they_are_written(store, value, lora):
    assert cell(store, TWO, **{"NAME=WEIGHT": value})["loras"][2] == {"name": "science", **lora}


@pytest.mark.parametrize(("axis", "value", "group"), [
    ("Combine strength", 0.30000000000000004, {"combining": {"density": 0.4, "strength": 0.3}}),
    ("Guidance strength", 25.0, {"guidance": {"show": True, "strength": 25.0}}),
    ("Noises", 4, {"guidance": {"show": True, "noises": 4}})])
def test_a_setting_is_changed_beside_the_others_of_its_group(store, axis, value, group):
    given = {**TWO, "combining": {"density": 0.4}, "guidance": {"show": True}}
    assert cell(store, given, **{axis: value}) == {**given, **group}


def test_the_threshold_is_that_of_the_masks_there_are(store):
    subjects = {"loras": [{**TWO["loras"][0], "subject": "rocket"}], "compose": "contrastive"}
    assert cell(store, subjects, **{"Mask threshold": 0.2})["guidance"] == {"mask_threshold": 0.2}
    for edits in itertools.permutations({"Mask threshold": 0.2, "Compose": "masked"}.items()):
        data = cell(store, subjects, **dict(edits))
        assert data["masking"] == {"threshold": 0.2} and "guidance" not in data


def test_what_was_given_is_left_as_it_is(store):
    before = copy.deepcopy(TWO)
    for axis, value in [("LoRA 1 weight", 0.1), (f"LoRA 2 schedule ({EXAMPLE})", "1@0"), ("LoRA 1 name", "science"),
                        ("NAME=WEIGHT", "science=0.3"), ("Guidance strength", 3.0), ("Mask threshold", 0.2),
                        ("Compose", "switch")]:
        cell(store, TWO, **{axis: value})
        assert TWO == before, axis


def test_the_order_of_the_axes_does_not_matter(store):
    edits = [(AXES["Preset"], "science-imagination"), (AXES["LoRA 1 weight"], 0.1), (AXES["LoRA 4 name"], "extra")]
    results = [edited(TWO, order, store) for order in itertools.permutations(edits)]
    assert all(one == results[0] for one in results)
    assert [lora["weight"] for lora in results[0]["loras"]] == [0.1, 0.55, 0.5, 1.0]
    assert labels_of(results[0]) == ["child", "watercolor", "science", "extra"]


def test_a_recipes_own_preset_is_filled_in_and_its_roles_are_kept(store):
    data = cell(store, {"preset": "science-imagination", "roles": {"child": "kid"}}, **{"LoRA 2 weight": 0.9})
    assert [lora["weight"] for lora in data["loras"]] == [0.65, 0.9, 0.5]
    assert data["roles"] == {"child": "kid"} and "preset" not in data
    assert cell(store, data, Preset="science-imagination-child")["roles"] == {"child": "kid"}


@pytest.mark.parametrize("base", [None, "", "  ", "null", {"enabled": False, "loras": []}])
def test_an_empty_recipe_is_begun(store, base):
    assert cell(store, base, **{"NAME=WEIGHT": "child=0.4"}) == {"loras": [{"name": "child", "weight": 0.4}]}


def test_what_is_switched_off_stays_off_unless_an_axis_switches_it_on(store):
    off = {**TWO, "enabled": False}
    with pytest.raises(SciArtError, match="SciArt is switched off"):
        cell(store, off, **{"LoRA 1 weight": 0.4})
    on = cell(store, off, **{"LoRA 1 weight": 0.4, "Enabled": "True"})
    assert on["enabled"] is True and on["loras"][0]["weight"] == 0.4
    assert cell(store, TWO, Enabled="False")["enabled"] is False


@pytest.mark.parametrize(("axis", "value", "labels", "told"), [
    ("LoRA 1 weight", 0.5, ["child"], "child: 0.5"),
    ("LoRA 1 weight", 0.1 + 0.2, ["child"], "child: 0.3"),
    ("LoRA 2 weight", 1.0, ["child"], "LoRA 2 weight: 1"),
    (f"LoRA 1 schedule ({EXAMPLE})", EXAMPLE, ["child"], "child: 0.2@0; 0.65@0.5"),
    ("LoRA 1 name", "science", ["child"], "science"),
    ("NAME=WEIGHT", "child=0.5", [], "child=0.5"),
    ("Preset", "two-subjects", [], "Preset: two-subjects"),
    ("Compose", "switch", [], "Compose: switch"),
    ("Combine", "ties", [], "Combine: ties"),
    ("Guidance strength", 40.0, [], "Strength: 40"),
    ("Combine strength", 0.5, [], "Combine strength: 0.5"),
    ("Noises", 4, [], "Noises: 4"),
    ("Mask threshold", 0.15, [], "Mask threshold: 0.15"),
    ("Enabled", "False", [], "SciArt off"),
])
def test_what_is_written_beside_the_grid(axis, value, labels, told):
    assert AXES[axis].told(value, labels) == told
