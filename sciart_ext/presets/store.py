"""Presets: starting points shipped with SciArt, the user's own, and which file plays which role.

A preset is a JSON file: `title`, `description`, `recipe`, `txt2img` (the host's API field names), `prompts` (more
prompts that suit it) and, where it has more stages than txt2img, `pipeline`. Its LoRAs are *roles* (child, watercolor,
...); the user binds a role to a file once. One file that is wrong is one line where presets are listed, and what could
not be listed is not saved (`check`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SciArtError, did_you_mean, quoted, shown
from ..recipe import LoraEntry, Recipe, dump_recipe, parse_recipe
from ..recipe.renamed import renamed
from ..whole_file import check_case, check_name, delete, one_at_a_time, write_text
from .check import MOST_BYTES, check_bindings, check_preset
from .files import one_line, read_json_file, read_text

BUILTIN_DIR = Path(__file__).parent / "shipped"
USER_DIR = Path(os.environ.get("SCIART_USER_DIR") or Path(__file__).parents[2] / "user")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ACCEPTED = "1 to 64 of a-z 0-9 _ -, a letter or digit first"
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
        return [lora["role"] for lora in self.data["recipe"].get("loras", []) if lora.get("role")]


class PresetStore:
    """The presets in two folders: the shipped ones, which stay as they are, and the user's."""

    def __init__(self, user_dir: Path | None = None, builtin_dir: Path = BUILTIN_DIR):
        self.user_dir = Path(USER_DIR if user_dir is None else user_dir)
        self.builtin_dir = Path(builtin_dir)

    def names(self) -> list[str]:
        """Names of all that can be used, shipped ones first."""
        return [preset["name"] for preset in self.listed() if "error" not in preset]

    def listed(self) -> list[dict]:
        """All presets, shipped ones first: `Preset.to_json()` of each, or {"name", "builtin", "error"} for a file that
        is none; the error is one line. Raises nothing, whatever lies in the folders."""
        own = self.user_dir / "presets"
        found = [self._told(path, True) for path in _files(self.builtin_dir)]
        try:
            return found + [self._told(path, False) for path in _files(own)]
        except SciArtError as error:
            return [*found, {"name": own.name, "builtin": False, "error": one_line(str(error))}]

    def read(self, name: str, field: str = "preset") -> Preset:
        """The preset called `name`. Raises `SciArtError` where there is none, and where its file is wrong."""
        builtin, path = self._found(name, field)
        _check_stem(path, field)
        data = read_json_file(path, MOST_BYTES, field)
        try:
            return Preset(name, builtin, check_preset(data))
        except SciArtError as error:
            raise SciArtError(field, f"{path.name} cannot be used: {one_line(str(error))}") from None

    def text(self, name: str, field: str = "preset") -> str:
        """What is in the file of the preset called `name`, right or wrong."""
        return read_text(self._found(name, field)[1], MOST_BYTES, field)

    def check(self, name: str, data: object) -> dict:
        """The preset's data as it would be saved under this name. Raises `SciArtError` where it would be refused."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SciArtError("name", f"{shown(name)}; accepted: {_ACCEPTED}")
        check_name(name, "name")
        if self._builtin_path(name).is_file():
            raise SciArtError("name", f"{name!r} is shipped with SciArt and cannot be replaced; choose another name")
        check_case(self._user_path(name), "name")
        data = check_preset(data)
        size = len(json_text(data).encode("utf-8"))
        if size > MOST_BYTES:
            raise SciArtError("preset", f"{size} bytes; accepted: at most {MOST_BYTES}")
        return data

    def save(self, name: str, data: object) -> Preset:
        """Keeps the user's own preset; the file appears whole or not at all."""
        data = self.check(name, data)
        data = {**data, "recipe": renamed(data["recipe"], self.kept_name)}
        with one_at_a_time(self.user_dir):
            write_json(self._user_path(name), data)
        return Preset(name, False, data)

    def kept_name(self, lora: str) -> str:
        """By which name a LoRA is kept; a host that knows it by several says which stays its own."""
        return lora

    def delete(self, name: str) -> None:
        """Removes one of the user's own presets, also one that is wrong."""
        builtin, path = self._found(name, "name")
        if builtin:
            raise SciArtError("name", f"{name!r} is shipped with SciArt and cannot be deleted")
        with one_at_a_time(self.user_dir):
            delete(path)
            delete(path.with_suffix(".webp"))  # its picture (pictures.py)

    def bindings(self) -> dict[str, str]:
        """Which LoRA name plays which role, as the user bound them."""
        path = self.user_dir / "roles.json"
        if not path.is_file() and not path.is_symlink():
            return {}
        try:
            return check_bindings(read_json_file(path, MOST_BYTES, "roles"))
        except SciArtError as error:
            raise SciArtError("roles", f"{one_line(error.message)}; mend or delete the file {path}") from None

    def listed_bindings(self) -> tuple[dict[str, str], str]:
        """The same, and in a line what is wrong with the file; empty where nothing is."""
        try:
            return self.bindings(), ""
        except SciArtError as error:
            return {}, one_line(str(error))

    def bind(self, bindings: dict[str, str], only_unbound: bool = False) -> dict[str, str]:
        """Binds roles to LoRA names, beside those bound before; an empty name unbinds. Returns all of them.

        only_unbound: roles that are bound already keep their LoRA."""
        asked = {role: self.kept_name(name) if name else name for role, name in check_bindings(bindings).items()}
        with one_at_a_time(self.user_dir):
            kept = self.bindings()
            merged = {**asked, **kept} if only_unbound else {**kept, **asked}
            merged = check_bindings({role: name for role, name in merged.items() if name})
            write_json(self.user_dir / "roles.json", merged)
        return merged

    def _told(self, path: Path, builtin: bool) -> dict:
        name = one_line(quoted(path.stem))
        try:
            if not builtin and self._builtin_path(path.stem).is_file():
                raise SciArtError("name", f"{name!r} is shipped with SciArt; rename or delete the file {path}")
            _check_stem(path, "name")
            return Preset(name, builtin, check_preset(read_json_file(path, MOST_BYTES, "preset"))).to_json()
        except SciArtError as error:
            return {"name": name, "builtin": builtin, "error": one_line(str(error))}

    def _found(self, name: str, field: str) -> tuple[bool, Path]:
        """Whether the preset's file is a shipped one, and the file."""
        for builtin, folder in ((True, self.builtin_dir), (False, self.user_dir / "presets")):
            for path in _files(folder):
                if name in (path.stem, one_line(quoted(path.stem))):
                    return builtin, path
        raise SciArtError(field, f"no preset {shown(name)}; {did_you_mean(str(name), self.names())}")

    def _builtin_path(self, name: str) -> Path:
        return self.builtin_dir / f"{name}.json"

    def _user_path(self, name: str) -> Path:
        return self.user_dir / "presets" / f"{name}.json"


def resolve(recipe: Recipe, store: PresetStore) -> Recipe:
    """The recipe made self-contained: the preset's values filled in, each role replaced by its LoRA's name."""
    if recipe.preset is not None:
        recipe = parse_recipe({**filled_in(recipe, store), "preset": recipe.preset})
    kept = store.bindings() if any(lora.role and lora.role not in recipe.roles for lora in recipe.loras) else {}
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


def json_text(data: object) -> str:
    """As presets are written."""
    return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, data: object) -> None:
    """Writes JSON so that readers see the old file or the new one, never half of it."""
    write_text(path, json_text(data))


def _bind(lora: LoraEntry, field: str, bindings: dict[str, str]) -> dict:
    entry = json.loads(lora.json(exclude_defaults=True))
    if lora.role is not None:
        if lora.role not in bindings:
            raise SciArtError(f"{field}.role", f"{shown(lora.role)} is not bound to a LoRA; bind it in the panel, with "
                                               f"POST /sciart/v1/roles or \"roles\": {{\"{lora.role}\": NAME}}")
        entry["name"] = bindings[entry.pop("role")]
    return entry


def _files(folder: Path) -> list[Path]:
    """What lies there as a preset, whatever it is, by name."""
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() == ".json"]
        return sorted(found, key=lambda path: (path.stem, path.suffix != ".json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SciArtError(folder.name, f"the folder {folder} cannot be read: {error.strerror}") from None


def _check_stem(path: Path, field: str) -> None:
    if not _NAME.fullmatch(path.stem) or path.suffix != ".json":
        raise SciArtError(field, f"the file {shown(path.name)} is not named as presets are; accepted: {_ACCEPTED}, "
                                 "then .json")
    check_name(path.name, field)
