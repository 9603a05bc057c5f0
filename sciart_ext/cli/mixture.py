"""How the command line gives a mixture: `--recipe`, `--preset`, `--lora NAME=SPEC`, `--role ROLE=NAME`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

from .. import json_text
from ..errors import SciArtError, did_you_mean, shown
from ..lora.folder import find_lora, lora_files
from ..presets import PresetStore, resolve
from ..recipe import Recipe, parse_recipe
from ..recipe.schedule import check_points
from ..recipe.schedule_text import named_value
from ..standalone.prompts.loras import find_prompt_loras
from ..world import MODEL
from .command import MIXTURE, Decorator, options
from .values import Word


class LoraName(click.ParamType):
    """A LoRA, perhaps with its weight; a shell completes its name."""

    def __init__(self, name: str, ending: str = ""):
        self.name, self.ending = name, ending

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        given = {"model": ctx.params.get("model") or MODEL, "lora_dir": ctx.params.get("lora_dir")}
        folder = lora_folder(SimpleNamespace(**given))
        names = [path.stem for path in lora_files(folder)] if folder is not None and folder.is_dir() else []
        found = [CompletionItem(f"{name}{self.ending}") for name in names if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


RECIPE_OPTIONS = options(
    click.option("--recipe", metavar="FILE|JSON", panel=MIXTURE,
                 help="A recipe as JSON, in a file, or - for standard input."),
    click.option("--preset", type=Word("NAME", lambda: PresetStore().names()), panel=MIXTURE,
                 help="Start from a preset; what else is given is added to it, or changes it."),
    click.option("--lora", type=LoraName("NAME=SPEC", "="), multiple=True, panel=MIXTURE,
                 help="A LoRA and its weight (0.6), schedule (0.2@0, 0.65@0.5; in steps 0.2@s1, 0.65@s10) or steps to "
                      "act in (0.6:start=5:stop=10); repeatable."),
    click.option("--role", metavar="ROLE=NAME", multiple=True, panel=MIXTURE,
                 help="Which LoRA plays a preset's role; repeatable."))


def lora_dir_option(help: str = "Where LoRA names are looked up; default: the tiny model's own.") -> Decorator:
    return click.option("--lora-dir", type=click.Path(path_type=Path), metavar="FOLDER", panel=MIXTURE, help=help)


def lora_folder(given: Any) -> Path | None:
    """Where LoRA names are looked up: as given, or with the tiny model its own."""
    return given.lora_dir or (MODEL / "loras" if getattr(given, "model", MODEL) == MODEL else None)


def recipe_data(given: Any, store: PresetStore) -> dict:
    """The recipe's JSON data from the options: a `--lora` is added to the LoRAs of `--recipe` or `--preset`, or changes
    the weight of the one of its name or role."""
    data = read_json(given.recipe, "recipe") if given.recipe is not None else {}
    if not isinstance(data, dict):
        raise SciArtError("recipe", f"expected one JSON object, got {type(data).__name__}")
    data = dict(data)
    if given.preset is not None:
        if data.get("loras"):
            tell("the recipe's LoRAs replace those of the preset")
        data["preset"] = given.preset
    if given.lora:
        there = data.get("loras", _loras_of_preset(data, store))
        if not isinstance(there, list):
            raise SciArtError("loras", f"expected a list, got {type(there).__name__}")
        data["loras"] = _added(there, [parse_lora_option(text) for text in given.lora])
    if given.role:
        roles = data.get("roles", {})
        if not isinstance(roles, dict):
            raise SciArtError("roles", f"expected an object of role: LoRA name, got {type(roles).__name__}")
        asked = dict(_pair(text, "role", "ROLE=NAME, for example child=my_lora") for text in given.role)
        _check_roles(asked, roles_in(data, store))
        data["roles"] = {**roles, **asked}
    return data


def parse_lora_option(text: str) -> dict:
    """`NAME=0.6` or `NAME=0.2@0, 0.65@0.5` as an entry of a recipe. A name may have `=`, as `start=5` in SPEC."""
    name, spec = named_value(text)
    if not name:
        raise SciArtError("lora", f"cannot read {shown(text)}; expected NAME=SPEC, for example child=0.65 or "
                                  "child=0.2@0,0.65@0.5")
    points = check_points(spec, f"lora {name}")
    if "@" not in spec and len(points) == 1:
        return {"name": name, "weight": points[0][1]}
    return {"name": name, "schedule": [list(point) for point in points]}


def read_json(source: str, field: str) -> object:
    """JSON from a text that starts with `{`, from a file, or from standard input (`-`)."""
    try:
        if source == "-":
            text = sys.stdin.read()
        elif source.lstrip().startswith(("{", "[")):
            text = source
        else:
            text = Path(source).read_text(encoding="utf-8-sig")
        return json_text.read_json(text)
    except OSError as error:
        raise SciArtError(field, f"{source}: {error.strerror or error}") from None
    except ValueError as error:
        raise SciArtError(field, f"not valid JSON: {error}") from None


def resolved_recipe(data: dict, store: PresetStore, folder: Path | None = None) -> Recipe:
    """The self-contained recipe; with nothing given, one that leaves the model alone. folder: of LoRAs; a role that is
    not bound is played by the one there of its name."""
    if not data:
        return parse_recipe({"enabled": False})
    try:
        return resolve(parse_recipe(_played(data, store, folder)), store)
    except SciArtError as error:
        if not error.message.endswith("NAME}"):
            raise
        role = error.message.split("'")[1]
        raise SciArtError(error.field, f"{shown(role)} is not bound to a LoRA; give --role {role}=NAME") from None


def check_loras(recipe: Recipe, folder: Path | None, prompt: str = "") -> list[Path]:
    """The files of a recipe's LoRAs, then of those that the prompt names; raises where there is none of a name. Reads
    none of them."""
    loras = recipe.loras if recipe.enabled else []
    return [*(find_lora(lora.name, folder) for lora in loras),
            *(path for _, path in find_prompt_loras(prompt, folder))]


def self_bound(data: dict, store: PresetStore) -> dict:
    """The data with roles that are not bound standing for themselves: a plan needs no files."""
    return _bound(data, {role: role for role in roles_in(data, store)}, store)


def roles_in(data: Mapping, store: PresetStore) -> list[str]:
    """The roles that a recipe's LoRAs play, or its preset's, where the recipe has none of its own."""
    loras = data.get("loras", _loras_of_preset(data, store))
    roles = [entry.get("role") for entry in loras if isinstance(entry, dict)] if isinstance(loras, list) else []
    return [role for role in roles if isinstance(role, str)]


def tell(note: str) -> None:
    """A note, on standard error."""
    click.echo(f"note: {' '.join(note.split())}", err=True)


def _loras_of_preset(data: Mapping, store: PresetStore) -> list[dict]:
    name = data.get("preset")
    return list(store.read(name).data["recipe"].get("loras", [])) if isinstance(name, str) else []


def _added(there: Sequence[Any], asked: Sequence[dict]) -> list[Any]:
    found = list(there)
    for entry in asked:
        same = next((k for k, one in enumerate(there) if isinstance(one, dict) and entry["name"] in (
            one.get("role"), one.get("name"))), None)
        if same is None:
            found.append(entry)
        elif found[same] is not there[same]:
            raise SciArtError("lora", f"{shown(entry['name'])} is given twice")
        else:
            kept = {key: value for key, value in there[same].items() if key not in ("weight", "schedule")}
            found[same] = {**kept, **{key: value for key, value in entry.items() if key != "name"}}
    return found


def _check_roles(asked: Mapping[str, str], known: Sequence[str]) -> None:
    for role in asked:
        if not known:
            raise SciArtError("role", f"no LoRA here plays {shown(role)}; roles are those of a preset, which --preset "
                                      "names")
        if role not in known:
            raise SciArtError("role", f"no LoRA here plays {shown(role)}; {did_you_mean(role, known)}")


def _played(data: dict, store: PresetStore, folder: Path | None) -> dict:
    if folder is None or not folder.is_dir():
        return data
    names = {path.stem.lower(): path.stem for path in lora_files(folder)}
    return _bound(data, {role: names[role.lower()] for role in roles_in(data, store) if role.lower() in names}, store)


def _bound(data: dict, names: Mapping[str, str], store: PresetStore) -> dict:
    """The data with these names for roles that neither it nor the user has bound."""
    given = data.get("roles", {})
    return {**data, "roles": {**names, **store.bindings(), **given}} if names and isinstance(given, dict) else data


def _pair(text: str, option: str, expected: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise SciArtError(option, f"cannot read {shown(text)}; expected {expected}")
    return name.strip(), value.strip()
