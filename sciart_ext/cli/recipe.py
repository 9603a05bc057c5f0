"""How the command line gives a recipe: `--recipe`, `--preset`, `--lora NAME=SPEC`, `--role ROLE=NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import json_text
from ..errors import SciArtError, shown
from ..presets import PresetStore, resolve
from ..recipe import Recipe, parse_recipe
from ..recipe.schedule import check_points
from ..recipe.schedule_text import named_value


def add_recipe_options(command: argparse.ArgumentParser) -> None:
    """Adds the options that `recipe_data` reads."""
    command.add_argument("--recipe", metavar="FILE|JSON", help="a recipe as JSON, in a file, or - for standard input")
    command.add_argument("--preset", metavar="NAME", help="start from a preset; what else is given overrides it")
    command.add_argument("--lora", action="append", default=[], metavar="NAME=SPEC",
                         help="a LoRA and its weight (0.6), schedule (0.2@0, 0.65@0.5; in steps 0.2@s1, 0.65@s10) or "
                              "steps to act in (0.6:start=5:stop=10); repeatable")
    command.add_argument("--role", action="append", default=[], metavar="ROLE=NAME",
                         help="which LoRA plays a preset's role; repeatable")


def recipe_data(args: argparse.Namespace) -> dict:
    """The recipe's JSON data from the options. A `--lora` is added to the LoRAs of `--recipe`."""
    data = read_json(args.recipe, "recipe") if args.recipe else {}
    if not isinstance(data, dict):
        raise SciArtError("recipe", f"expected one JSON object, got {type(data).__name__}")
    data = dict(data)
    if args.preset:
        data["preset"] = args.preset
    if args.lora:
        given = data.get("loras", [])
        if not isinstance(given, list):
            raise SciArtError("loras", f"expected a list, got {type(given).__name__}")
        data["loras"] = given + [parse_lora_option(text) for text in args.lora]
    if args.role:
        given = data.get("roles", {})
        if not isinstance(given, dict):
            raise SciArtError("roles", f"expected an object of role: LoRA name, got {type(given).__name__}")
        data["roles"] = {**given, **dict(_pair(text, "role", "ROLE=NAME, for example child=my_lora")
                                         for text in args.role)}
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
            text = Path(source).read_text(encoding="utf-8")
        return json_text.read_json(text)
    except OSError as error:
        raise SciArtError(field, f"{source}: {error.strerror or error}") from None
    except ValueError as error:
        raise SciArtError(field, f"not valid JSON: {error}") from None


def resolved_recipe(data: dict, store: PresetStore) -> Recipe:
    """The self-contained recipe; with nothing given, one that leaves the model alone."""
    try:
        return resolve(parse_recipe(data), store) if data else parse_recipe({"enabled": False})
    except SciArtError as error:
        if not error.message.endswith("NAME}"):
            raise
        role = error.message.split("'")[1]
        raise SciArtError(error.field, f"{shown(role)} is not bound to a LoRA; give --role {role}=NAME") from None


def self_bound(data: dict, store: PresetStore) -> dict:
    """The data with roles that are not bound standing for themselves: a plan needs no files."""
    roles = [entry.get("role") for entry in data.get("loras", []) if isinstance(entry, dict)]
    if isinstance(data.get("preset"), str) and "loras" not in data:
        roles += store.read(data["preset"]).roles()
    given = data.get("roles", {})
    names = {role: role for role in roles if isinstance(role, str)}
    if not names or not isinstance(given, dict):
        return data
    return {**data, "roles": {**names, **store.bindings(), **given}}


def _pair(text: str, option: str, expected: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise SciArtError(option, f"cannot read {shown(text)}; expected {expected}")
    return name.strip(), value.strip()
