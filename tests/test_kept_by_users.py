"""What users have kept of an earlier version is read as it was then: `tests/kept/`, which names the commit it is of.

`own/` is a user's folder of presets and roles. kept.json: of each recipe as it was requested, how it was read, the
gates of 20 steps, and the infotext of its picture; how the presets were resolved; the shipped styles.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sciart_ext.presets import PresetStore, resolve
from sciart_ext.presets.pictures import thumbnail
from sciart_ext.presets.prompt_styles import shipped_styles
from sciart_ext.recipe import INFOTEXT_KEY, compile_plan, dump_recipe, parse_recipe
from sciart_ext.standalone.infotext import parse_infotext

FOLDER = Path(__file__).with_name("kept")
KEPT = json.loads((FOLDER / "kept.json").read_text(encoding="utf-8"))


@pytest.fixture
def store(tmp_path):
    return PresetStore(user_dir=shutil.copytree(FOLDER / "own", tmp_path / "own"))


@pytest.mark.parametrize("kept", KEPT["recipes"].values(), ids=KEPT["recipes"])
def test_a_request_and_an_infotext_are_the_recipe_that_they_were(kept):
    for given in (kept["request"], json.dumps(kept["request"]), parse_infotext(kept["infotext"])[INFOTEXT_KEY]):
        recipe = parse_recipe(given)
        assert dump_recipe(recipe) == kept["recipe"]
        plan = compile_plan(recipe, 20).first
        assert [[list(plan.gates(at, row)) for row in plan.rows()] for at in plan.progress()] == kept["gates"]


@pytest.mark.parametrize("name", KEPT["presets"])
def test_a_preset_of_ones_own_is_resolved_as_it_was(store, name):
    kept = KEPT["presets"][name]
    assert store.read(name).to_json() == kept["data"]
    assert dump_recipe(resolve(parse_recipe({"preset": name}), store)) == kept["recipe"]
    assert bool(thumbnail(store, name)) == kept["thumbnail"]


def test_no_preset_and_no_style_is_gone(store):
    assert set(KEPT["names"]) <= set(store.names())
    assert KEPT["styles"] == [list(style) for style in shipped_styles()]
