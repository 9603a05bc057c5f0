"""Infotext: what a picture says of its recipe is read back by the host's own paste, and makes the same pixels again."""

from __future__ import annotations

import json
import shutil

import pytest
from pictures import with_recipe
from random_recipes import ODD_NAME, random_request
from server import HostServer

from sciart_ext.recipe import COMPOSES, Recipe, parse_recipe

RECIPES, AT_ONCE = 200, 20


@pytest.fixture(scope="module")
def loras(host: HostServer) -> HostServer:
    """With one more LoRA, of a name that must be quoted."""
    folder = host.data / "models" / "Lora"
    shutil.copy(folder / "child.safetensors", folder / f"{ODD_NAME}.safetensors")
    assert host.post("/sdapi/v1/refresh-loras").status == 200
    yield host
    (folder / f"{ODD_NAME}.safetensors").unlink()
    host.post("/sdapi/v1/refresh-loras")


@pytest.mark.parametrize("first", range(0, RECIPES, AT_ONCE))
def test_pasted_recipes_make_their_pictures_again(loras: HostServer, first: int) -> None:
    """Every other one from its infotext alone, as the host restores it; the others from the pasted recipe."""
    host, wrong = loras, []
    for number in range(first, first + AT_ONCE):
        given, payload = random_request(number)
        made = host.txt2img(**payload, **with_recipe(given))
        assert made.status == 200, (number, given, made.text)
        read = host.post("/sdapi/v1/png-info", {"image": made.json["images"][0]}).json
        pasted = read["parameters"]["SciArt"]
        assert isinstance(pasted, str) and read["info"] == made.infotext
        if parse_recipe(pasted) != parse_recipe(given):
            wrong.append((number, "another recipe", given, pasted))
        alone = number % 2 and "enable_hr" not in payload  # the host's API cannot read back its own hires infotext
        again = host.post("/sdapi/v1/txt2img", {"infotext": made.infotext}) if alone else \
            host.txt2img(**payload, **with_recipe(pasted))
        assert again.status == 200, (number, given, again.text)
        if not (again.pictures[0] == made.pictures[0]).all():
            wrong.append((number, "other pixels", given, payload))
        if again.infotext != made.infotext:
            wrong.append((number, "another infotext", made.infotext, again.infotext))
    assert not wrong


def test_the_recipes_cover_the_schema() -> None:
    """Every field of the recipe, every way to compose and to combine is among them, or is told here why not."""
    recipes = [random_request(number)[0] for number in range(RECIPES)]
    assert len({json.dumps(recipe, sort_keys=True) for recipe in recipes}) == RECIPES
    used = {path for recipe in recipes for path in _paths(recipe)}
    not_in_an_infotext = {"enabled", "preset", "roles"}  # off has none; preset and roles are filled in
    assert set(Recipe.__fields__) - used <= not_in_an_infotext
    model = Recipe.__fields__["loras"].type_
    not_named = {"role"}
    assert {f"loras.{name}" for name in model.__fields__} - used <= {f"loras.{name}" for name in not_named}
    for group in ("composition", "combining"):
        assert {f"{group}.{name}" for name in Recipe.__fields__[group].type_.__fields__} <= used
    assert {recipe.get("compose", "merge") for recipe in recipes} == set(COMPOSES)
    assert {recipe.get("combine", "linear") for recipe in recipes} == set(Recipe.__fields__["combine"].type_.__args__)


def _paths(recipe: dict):
    for key, value in recipe.items():
        yield key
        entries = value if key == "loras" else [value] if isinstance(value, dict) else []
        for entry in entries:
            yield from (f"{key}.{name}" for name in entry)
