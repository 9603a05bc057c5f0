"""Presets: starting points shipped with SciArt, the user's own, and which file plays which role.

A preset is a JSON file: `title`, `description`, `recipe`, `txt2img` (the host's API field names), `prompts` (more
prompts that suit it) and, where it has more stages than txt2img, `pipeline`. Its LoRAs are *roles* (child, watercolor,
...); the user binds a role to a file once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SciArtError, did_you_mean
from ..pipeline.settings import parse_pipeline
from ..recipe import LoraEntry, Recipe, dump_recipe, parse_recipe
from ..whole_file import delete, write_text

BUILTIN_DIR = Path(__file__).parent / "shipped"
USER_DIR = Path(os.environ.get("SCIART_USER_DIR") or Path(__file__).parents[2] / "user")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FIELDS = {"title": str, "description": str, "recipe": dict, "txt2img": dict, "prompts": list}
_OPTIONAL_FIELDS = {"pipeline": dict}
_TXT2IMG_FIELDS = ("prompt", "negative_prompt", "seed", "steps", "cfg_scale", "width", "height", "sampler_name",
                   "scheduler", "enable_hr", "hr_scale", "hr_upscaler", "hr_second_pass_steps",
                   "denoising_strength", "override_settings")
_ROLE_WORDS = {
    "child": ("child", "kid", "crayon", "doodle", "naive", "어린이", "아이"),
    "watercolor": ("watercolor", "watercolour", "aquarelle", "수채"),
    "science": ("science", "sci-fi", "scifi", "sci_fi", "fiction", "mecha", "과학"),
}


@dataclass(frozen=True)
class Preset:
    """One preset and where it comes from."""

    name: str
    builtin: bool
    data: dict

    def to_json(self) -> dict:
        """The preset as the API shows it, with its roles."""
        return {"name": self.name, "builtin": self.builtin, **self.data, "roles": self.roles()}

    def roles(self) -> list[str]:
        """The roles its LoRAs play, in order."""
        return [lora["role"] for lora in self.data["recipe"].get("loras", []) if "role" in lora]


class PresetStore:
    """The presets in two folders: the shipped ones, which stay as they are, and the user's."""

    def __init__(self, user_dir: Path = USER_DIR, builtin_dir: Path = BUILTIN_DIR):
        self.user_dir = Path(user_dir)
        self.builtin_dir = Path(builtin_dir)

    def names(self) -> list[str]:
        """All names, shipped ones first."""
        own = self.user_dir / "presets"
        builtin = sorted(path.stem for path in self.builtin_dir.glob("*.json"))
        return builtin + sorted({path.stem for path in own.glob("*.json")} - set(builtin))

    def read(self, name: str, field: str = "preset") -> Preset:
        """The preset called `name`."""
        if name not in self.names():
            raise SciArtError(field, f"no preset {name!r}; {did_you_mean(name, self.names())}")
        builtin = (self.builtin_dir / f"{name}.json").is_file()
        path = self._builtin_path(name) if builtin else self._user_path(name)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SciArtError(field, f"preset file {path.name} cannot be read: {error}") from None
        return Preset(name, builtin, check_preset(data))

    def save(self, name: str, data: dict) -> Preset:
        """Keeps the user's own preset; the file appears whole or not at all."""
        if not _NAME.fullmatch(name):
            raise SciArtError("name", f"{name!r}; accepted: 1 to 64 of a-z 0-9 _ -, a letter or digit first")
        if self._builtin_path(name).is_file():
            raise SciArtError("name", f"{name!r} is shipped with SciArt and cannot be replaced; choose another name")
        data = check_preset(data)
        write_json(self._user_path(name), data)
        return Preset(name, False, data)

    def delete(self, name: str) -> None:
        """Removes one of the user's own presets."""
        preset = self.read(name, "name")
        if preset.builtin:
            raise SciArtError("name", f"{name!r} is shipped with SciArt and cannot be deleted")
        delete(self._user_path(name))
        delete(self._user_path(name).with_suffix(".webp"))  # its picture (preset_pictures)

    def bindings(self) -> dict[str, str]:
        """Which LoRA name plays which role, as the user bound them."""
        path = self.user_dir / "roles.json"
        if not path.is_file():
            return {}
        try:
            return _check_bindings(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise SciArtError("roles", f"{path} cannot be read: {error}") from None

    def bind(self, bindings: dict[str, str], only_unbound: bool = False) -> dict[str, str]:
        """Binds roles to LoRA names, beside those bound before; an empty name unbinds. Returns all of them.

        only_unbound: roles that are bound already keep their LoRA."""
        kept, asked = self.bindings(), _check_bindings(bindings)
        merged = {**asked, **kept} if only_unbound else {**kept, **asked}
        merged = {role: name for role, name in merged.items() if name}
        write_json(self.user_dir / "roles.json", merged)
        return merged

    def _builtin_path(self, name: str) -> Path:
        return self.builtin_dir / f"{name}.json"

    def _user_path(self, name: str) -> Path:
        return self.user_dir / "presets" / f"{name}.json"


def check_preset(data: object) -> dict:
    """`data` as a preset, every field checked; the recipe too."""
    fields = {**_FIELDS, **_OPTIONAL_FIELDS}
    if not isinstance(data, dict):
        raise SciArtError("preset", f"expected an object with {', '.join(fields)}")
    for key, value in data.items():
        if key not in fields:
            raise SciArtError(key, f"unknown field; {did_you_mean(key, fields)}")
        if not isinstance(value, fields[key]):
            raise SciArtError(key, f"expected {fields[key].__name__}, got {type(value).__name__}")
    if "recipe" not in data:
        raise SciArtError("recipe", "missing")
    try:
        recipe = parse_recipe(data["recipe"])
    except SciArtError as error:
        raise SciArtError(f"recipe.{error.field}", error.message) from None
    if recipe.preset is not None:
        raise SciArtError("recipe.preset", "a preset cannot start from another preset")
    for key in data.get("txt2img", {}):
        if key not in _TXT2IMG_FIELDS:
            raise SciArtError(f"txt2img.{key}", f"unknown field; {did_you_mean(key, _TXT2IMG_FIELDS)}")
    if "pipeline" in data:
        parse_pipeline(data["pipeline"])
    return {**{key: kind() for key, kind in _FIELDS.items()}, **data}


def resolve(recipe: Recipe, store: PresetStore) -> Recipe:
    """The recipe made self-contained: the preset's values filled in, each role replaced by its LoRA's name."""
    if recipe.preset is not None:
        recipe = parse_recipe({**filled_in(recipe, store), "preset": recipe.preset})
    kept = store.bindings() if any(lora.role for lora in recipe.loras) else {}
    bindings = {**kept, **recipe.roles}
    loras = [_bind(lora, f"loras[{i}]", bindings) for i, lora in enumerate(recipe.loras)]
    data = dump_recipe(recipe.copy(exclude={"preset", "roles", "loras"}))
    if recipe.composition.order is not None:
        names = {lora.label: bound["name"] for lora, bound in zip(recipe.loras, loras)}
        data["composition"]["order"] = [names.get(label, label) for label in recipe.composition.order]
    return parse_recipe({**data, "loras": loras})


def filled_in(recipe: Recipe, store: PresetStore) -> dict:
    """The recipe as data, with what its preset says where it says nothing itself; roles stay roles."""
    given = json.loads(recipe.json(exclude_unset=True))
    preset = given.pop("preset", None)
    return given if preset is None else {**store.read(preset).data["recipe"], **given}


def suggest(role: str, names: Iterable[str]) -> list[str]:
    """LoRA names that look as if they could play `role`, best first."""
    words = _ROLE_WORDS.get(role.lower(), (role.lower(),))
    ranked = [(min((name.lower().find(word) for word in words if word in name.lower()), default=-1), len(name), name)
              for name in names]
    return [name for position, _, name in sorted(ranked) if position >= 0]


def write_json(path: Path, data: object) -> None:
    """Writes JSON so that readers see the old file or the new one, never half of it."""
    write_text(path, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def _bind(lora: LoraEntry, field: str, bindings: dict[str, str]) -> dict:
    entry = json.loads(lora.json(exclude_defaults=True))
    if lora.role is not None:
        if lora.role not in bindings:
            raise SciArtError(f"{field}.role", f"{lora.role!r} is not bound to a LoRA; bind it in the panel, with "
                                               f"POST /sciart/v1/roles or \"roles\": {{\"{lora.role}\": NAME}}")
        entry["name"] = bindings[entry.pop("role")]
    return entry


def _check_bindings(data: object) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(x, str) for pair in data.items() for x in pair):
        raise SciArtError("roles", "expected an object of role: LoRA name")
    return data
