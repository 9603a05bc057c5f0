"""Presets: the shipped ones, keeping one's own, and filling a recipe in from a preset and its roles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.widening.defaults import default
from sciart_ext.errors import SciArtError
from sciart_ext.presets import PresetStore, resolve, suggest
from sciart_ext.presets.store import check_preset, write_json
from sciart_ext.recipe import compile_plan, dump_recipe, parse_recipe

BALANCE = {"child": 0.65, "watercolor": 0.55, "science": 0.5}
PROFILES = ["science-imagination-profile-cool", "science-imagination-profile-warm"]
STUDY = ["science-imagination", "science-imagination-child", "science-imagination-cool",
         "science-imagination-large", "science-imagination-science", "science-imagination-warm",
         "science-imagination-watercolor"]
STEERED = {"two-subjects": ("masked", 2), "two-subjects-science-imagination": ("masked", 2),
           "three-subjects": ("contrastive", 3)}
SHIPPED = sorted([*STUDY, *PROFILES, *STEERED])
OWN = {"title": "Mine", "recipe": {"loras": [{"name": "a", "weight": 0.5}]}, "txt2img": {"steps": 10}}
ROLES = {"child": "kid_v2", "watercolor": "aqua", "science": "scifi"}
SUBJECTS = {"rocket": "apollo", "robot": "robbie", "submarine": "nautilus"}


@pytest.fixture
def store(tmp_path):
    return PresetStore(user_dir=tmp_path / "user")


def weights_of(preset):
    return {lora["role"]: lora["weight"] for lora in preset.data["recipe"]["loras"]}


def test_presets_are_shipped(store):
    assert store.names() == SHIPPED


@pytest.mark.parametrize("name", STUDY)
def test_every_preset_of_the_study_has_its_settings(store, name):
    preset = store.read(name)
    settings = preset.data["txt2img"]
    assert preset.builtin
    assert preset.roles() == ["child", "watercolor", "science"]
    assert (settings["seed"], settings["cfg_scale"], settings["steps"]) == (777, 6, 35)
    assert (settings["width"], settings["height"]) == (512, 512)
    assert preset.data["title"] and preset.data["description"] and settings["prompt"] in preset.data["prompts"]


@pytest.mark.parametrize("name", STEERED)
def test_the_subjects_of_a_preset_are_in_all_its_prompts(store, name):
    preset = store.read(name)
    recipe = parse_recipe(preset.data["recipe"])
    subjects = [lora.subject for lora in recipe.loras if lora.subject]
    assert (recipe.compose, len(subjects)) == STEERED[name]
    for prompt in (preset.data["txt2img"]["prompt"], *preset.data["prompts"]):
        assert all(re.search(rf"\b{subject}\b", prompt) for subject in subjects)


@pytest.mark.parametrize("name", ["science-imagination", "science-imagination-cool", "science-imagination-warm",
                                  "science-imagination-large", *PROFILES])
def test_the_balanced_presets_have_the_study_s_weights(store, name):
    assert weights_of(store.read(name)) == BALANCE


@pytest.mark.parametrize("role", list(BALANCE))
def test_a_leading_lora_is_raised_and_the_others_lowered(store, role):
    weights = weights_of(store.read(f"science-imagination-{role}"))
    assert all(weight > BALANCE[r] if r == role else weight < BALANCE[r] for r, weight in weights.items())


def test_tone_comes_from_the_sampler_and_size_from_the_hires_pass(store):
    def sampler(name):
        settings = store.read(name).data["txt2img"]
        return f"{settings['sampler_name']} {settings['scheduler']}"

    assert sampler("science-imagination-cool") == "DPM++ 2M Karras"
    assert sampler("science-imagination-warm") == "DPM++ SDE Karras"
    large = store.read("science-imagination-large").data["txt2img"]
    assert large["enable_hr"] is True and large["width"] * large["hr_scale"] == 1024


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_preset_compiles(store, name):
    plan = compile_plan(resolve(parse_recipe({"preset": name, "roles": {**ROLES, **SUBJECTS}}), store), 35).first
    gates = [plan.gates(1.0, row) for row in plan.rows() if not row.uncond]
    assert [max(gate) for gate in zip(*gates)] == list(weights_of(store.read(name)).values())


def test_a_saved_preset_is_listed_read_and_deleted(store):
    saved = store.save("mine", OWN)
    assert not saved.builtin
    assert store.names() == [*SHIPPED, "mine"]
    assert store.read("mine") == saved
    assert saved.data == {"description": "", "prompts": [], **OWN}
    assert saved.to_json()["roles"] == []
    store.delete("mine")
    assert store.names() == SHIPPED


def test_saving_again_replaces(store):
    store.save("mine", OWN)
    store.save("mine", {**OWN, "title": "Other"})
    assert store.read("mine").data["title"] == "Other"


@pytest.mark.parametrize("name", ["../x", "x/y", "x\\y", "", ".", "..", ".hidden", "Ünï", "A", "a b", "a.json", "-a",
                                  "a" * 65, "x\n", "con\0"])
def test_names_that_could_leave_the_folder_are_refused(store, name):
    with pytest.raises(SciArtError) as caught:
        store.save(name, OWN)
    assert caught.value.field == "name"
    assert "accepted: 1 to 64 of a-z" in caught.value.message
    assert not store.user_dir.exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "", "nope"])
def test_reading_and_deleting_know_only_listed_names(store, name):
    with pytest.raises(SciArtError) as caught:
        store.read(name)
    assert caught.value.field == "preset"
    with pytest.raises(SciArtError):
        store.delete(name)


def test_an_unknown_preset_gets_a_suggestion(store):
    with pytest.raises(SciArtError, match="did you mean 'science-imagination-warm'"):
        store.read("science-imagination-wram")


def test_shipped_presets_stay_as_they_are(store):
    for act in (lambda: store.save("science-imagination", OWN), lambda: store.delete("science-imagination")):
        with pytest.raises(SciArtError, match="shipped with SciArt"):
            act()


def test_a_failing_write_leaves_the_old_file(store, monkeypatch):
    store.save("mine", OWN)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SciArtError, match=r"^mine\.json: cannot be written: disk full"):
        store.save("mine", {**OWN, "title": "Other"})
    monkeypatch.undo()
    assert store.read("mine").data["title"] == "Mine"
    assert [path.name for path in (store.user_dir / "presets").iterdir()] == ["mine.json"]


def test_data_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": {1, 2}})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_preset_file_is_named(store):
    store.save("mine", OWN)
    (store.user_dir / "presets" / "mine.json").write_text("{", encoding="utf-8")
    with pytest.raises(SciArtError, match=r"mine\.json cannot be read"):
        store.read("mine")


@pytest.mark.parametrize(("data", "field", "message"), [
    ([], "preset", "expected an object"),
    ({"title": "x"}, "recipe", "missing"),
    ({**OWN, "titel": 1}, "titel", "did you mean 'title'"),
    ({**OWN, "title": 1}, "title", "expected str"),
    ({**OWN, "recipe": {}}, "recipe.loras", "at least one"),
    ({**OWN, "recipe": {"loras": [{"name": "a", "weight": "x"}]}}, "recipe.loras[0].weight", "expected a number"),
    ({**OWN, "recipe": {"preset": "science-imagination"}}, "recipe.preset", "cannot start from another preset"),
    ({**OWN, "txt2img": {"cfg_scal": 1}}, "txt2img.cfg_scal", "did you mean 'cfg_scale'"),
])
def test_a_wrong_preset_is_refused_naming_the_field(data, field, message):
    with pytest.raises(SciArtError) as caught:
        check_preset(data)
    assert caught.value.field == field and message in caught.value.message


def test_resolve_replaces_roles_by_names(store):
    recipe = resolve(parse_recipe({"preset": "science-imagination", "roles": ROLES}), store)
    assert [(lora.name, lora.role, lora.weight) for lora in recipe.loras] == [
        ("kid_v2", None, 0.65), ("aqua", None, 0.55), ("scifi", None, 0.5)]
    assert recipe.preset is None and not recipe.roles


def test_resolving_twice_changes_nothing(store):
    recipe = resolve(parse_recipe({"preset": "science-imagination", "roles": ROLES}), store)
    assert resolve(recipe, store) == recipe


def test_a_resolved_recipe_needs_no_presets(store, tmp_path):
    recipe = resolve(parse_recipe({"preset": "science-imagination", "roles": ROLES}), store)
    empty = PresetStore(tmp_path / "none", tmp_path / "none")
    assert resolve(parse_recipe(dump_recipe(recipe)), empty) == recipe


def test_what_is_given_overrides_the_preset(store):
    recipe = resolve(parse_recipe({"preset": "science-imagination", "execution": "branch",
                                   "loras": [{"name": "x", "weight": 1}]}), store)
    assert dump_recipe(recipe) == {"loras": [{"name": "x", "weight": 1.0}], "execution": "branch"}


def test_an_unbound_role_is_named(store):
    with pytest.raises(SciArtError) as caught:
        resolve(parse_recipe({"preset": "science-imagination", "roles": {"child": "a", "watercolor": "b"}}), store)
    assert caught.value.field == "loras[2].role"
    assert "'science' is not bound to a LoRA" in caught.value.message


def test_an_unknown_preset_in_a_recipe_is_named(store):
    with pytest.raises(SciArtError) as caught:
        resolve(parse_recipe({"preset": "nope"}), store)
    assert caught.value.field == "preset"


def test_bindings_are_kept_and_the_recipe_s_own_come_first(store):
    assert store.bindings() == {}
    store.bind(ROLES)
    store.bind({"child": "other", "watercolor": ""})
    assert store.bindings() == {"child": "other", "science": "scifi"}
    own = {"watercolor": "w", "science": "s"}
    recipe = resolve(parse_recipe({"preset": "science-imagination", "roles": own}), store)
    assert [lora.name for lora in recipe.loras] == ["other", "w", "s"]


def test_only_unbound_roles_are_bound_where_that_is_asked(store):
    store.bind({"child": "mine"})
    bound = {"child": "mine", "science": "scifi"}
    assert store.bind({"child": "other", "science": "scifi"}, only_unbound=True) == bound
    assert store.bindings() == bound


@pytest.mark.parametrize("bindings", [[], {"child": 1}, "x"])
def test_wrong_bindings_are_refused(store, bindings):
    with pytest.raises(SciArtError, match="roles"):
        store.bind(bindings)


def test_names_that_suit_a_role_are_suggested():
    names = ["sdxl_watercolour_v3", "Watercolor", "kids_doodle", "SciFi-mecha", "portrait", "수채화"]
    assert set(suggest("watercolor", names)) == {"sdxl_watercolour_v3", "Watercolor", "수채화"}
    assert suggest("child", names) == ["kids_doodle"]
    assert suggest("science", names) == ["SciFi-mecha"]
    assert suggest("portrait", names) == ["portrait"]


def test_the_user_s_folder_can_be_chosen_by_environment(tmp_path):
    code = "from sciart_ext.presets import USER_DIR; print(USER_DIR)"
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, "SCIART_USER_DIR": str(tmp_path)},
                            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(tmp_path)


@pytest.mark.parametrize(("scene", "result", "presets"), [
    ("three styles", "breadth-table", [*STUDY, *PROFILES]),
    ("two subjects", "breadth-table-some", ["two-subjects"]),
    ("both", "breadth-table-some", ["two-subjects-science-imagination"]),
])
def test_presets_mix_in_the_way_that_was_measured_to_be_best(scene, result, presets):
    best = default(record.latest(result)["table"], scene)
    for name in presets:
        recipe = parse_recipe(PresetStore().read(name).data["recipe"])
        assert (recipe.compose, recipe.combine) == (best["compose"], best["combine"])
