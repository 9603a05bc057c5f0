"""What a preset and a file of roles may hold: every field's type and its limits, for what is read and what is saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import SciArtError, did_you_mean, shown
from ..json_text import check_json
from ..recipe import parse_recipe

MOST_BYTES = 1 << 20
"""of a file: a preset, or the roles"""
MOST_NAME = 256
"""characters of a role, or of a LoRA's name"""
MOST_ROLES = 256
MOST_TITLE = 200
MOST_DESCRIPTION = 10_000
MOST_PROMPT = 20_000
MOST_PROMPTS = 200

_FIELDS = {"title": str, "description": str, "recipe": dict, "txt2img": dict, "prompts": list}
_OPTIONAL_FIELDS = {"pipeline": dict}


def check_preset(data: object) -> dict:
    """`data` as a preset, every field checked; the recipe too. Raises `SciArtError` for anything else whatsoever."""
    fields = {**_FIELDS, **_OPTIONAL_FIELDS}
    check_json(data, "preset")
    if not isinstance(data, dict):
        raise SciArtError("preset", f"expected an object with {', '.join(fields)}")
    for key, value in data.items():
        if key not in fields:
            raise SciArtError(str(key), f"unknown field; {did_you_mean(str(key), fields)}")
        if not isinstance(value, fields[key]):
            raise SciArtError(key, f"expected {fields[key].__name__}, got {type(value).__name__}")
    if "recipe" not in data:
        raise SciArtError("recipe", "missing")
    _text(data.get("title", ""), "title", MOST_TITLE)
    _text(data.get("description", ""), "description", MOST_DESCRIPTION)
    _check_recipe(data["recipe"])
    _check_txt2img(data.get("txt2img", {}))
    _check_prompts(data.get("prompts", []))
    if "pipeline" in data:
        from ..pipeline.settings import parse_pipeline  # few presets have one

        parse_pipeline(data["pipeline"])
    return {**{key: kind() for key, kind in _FIELDS.items()}, **data}


def check_bindings(data: object) -> dict[str, str]:
    """`data` as roles and their LoRAs' names; an empty name is of none. Raises `SciArtError`."""
    check_json(data, "roles")
    if not isinstance(data, dict) or not all(isinstance(x, str) for pair in data.items() for x in pair):
        raise SciArtError("roles", "expected an object of role: LoRA name")
    if len(data) > MOST_ROLES:
        raise SciArtError("roles", f"{len(data)} of them; accepted: at most {MOST_ROLES}")
    for role, name in data.items():
        if not role:
            raise SciArtError("roles", f"{shown(name)} has a role without a name; accepted: one to {MOST_NAME} "
                                       "characters")
        _text(role, "roles", MOST_NAME)
        _text(name, f"roles.{role}", MOST_NAME)
    return data


def _check_recipe(data: dict) -> None:
    try:
        recipe = parse_recipe(data)
    except SciArtError as error:
        raise SciArtError(f"recipe.{error.field}", error.message) from None
    if recipe.preset is not None:
        raise SciArtError("recipe.preset", "a preset cannot start from another preset")
    for i, lora in enumerate(data.get("loras", [])):
        for key in ("name", "role"):
            if lora.get(key) is not None:
                _text(lora[key], f"recipe.loras[{i}].{key}", MOST_NAME)
    try:
        check_bindings(data.get("roles", {}))
    except SciArtError as error:
        raise SciArtError(f"recipe.{error.field}", error.message) from None


def _check_txt2img(data: dict) -> None:
    for key, value in data.items():
        if key not in _TXT2IMG:
            raise SciArtError(f"txt2img.{key}", f"unknown field; {did_you_mean(key, _TXT2IMG)}")
        _TXT2IMG[key](value, f"txt2img.{key}")


def _check_prompts(data: list) -> None:
    if len(data) > MOST_PROMPTS:
        raise SciArtError("prompts", f"{len(data)} of them; accepted: at most {MOST_PROMPTS}")
    for i, prompt in enumerate(data):
        _text(prompt, f"prompts[{i}]", MOST_PROMPT)


def _text(value: Any, field: str, most: int = MOST_NAME) -> None:
    if not isinstance(value, str):
        raise SciArtError(field, f"expected a text, got {shown(value)}")
    if len(value) > most:
        raise SciArtError(field, f"{len(value)} characters; accepted: at most {most}")


def _prompt(value: Any, field: str) -> None:
    _text(value, field, MOST_PROMPT)


def _whole(value: Any, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SciArtError(field, f"expected a whole number, got {shown(value)}")


def _number(value: Any, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SciArtError(field, f"expected a number, got {shown(value)}")


def _bool(value: Any, field: str) -> None:
    if not isinstance(value, bool):
        raise SciArtError(field, f"expected true or false, got {shown(value)}")


def _settings(value: Any, field: str) -> None:
    if not isinstance(value, dict):
        raise SciArtError(field, f"expected an object of setting: value, got {shown(value)}")
    for key, one in value.items():
        _text(key, field)
        for part in one if isinstance(one, list) else [one]:
            _setting(part, f"{field}.{key}")


def _setting(value: Any, field: str) -> None:
    if isinstance(value, str):
        _text(value, field, MOST_PROMPT)
    elif value is not None and not isinstance(value, bool):
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SciArtError(field, f"expected a text, a number, true or false, or a list of them, got {shown(value)}")


_TXT2IMG: dict[str, Callable[[Any, str], None]] = {
    "prompt": _prompt, "negative_prompt": _prompt, "seed": _whole, "steps": _whole, "cfg_scale": _number,
    "width": _whole, "height": _whole, "sampler_name": _text, "scheduler": _text, "enable_hr": _bool,
    "hr_scale": _number, "hr_upscaler": _text, "hr_second_pass_steps": _whole, "denoising_strength": _number,
    "override_settings": _settings}
