"""Axes of an X/Y/Z plot: what each can change in a recipe. Pure: recipe data in, recipe data out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ...errors import SciArtError, shown
from ...presets import PresetStore, filled_in
from ...recipe import COMPOSES, is_off, parse_recipe
from ...recipe.combining import METHODS
from ...recipe.schedule import check_points
from ...recipe.schedule_text import named_value, number_in

LORAS = 4
"""how many LoRAs of a recipe have axes of their own; any can be named on the axis NAME=WEIGHT"""
EXAMPLE = "0.2@0; 0.65@0.5"
"""of a schedule as a value of an axis: the plot takes commas for the ends of values, unless a value is in quotes"""
YES, NO = "True", "False"
_START, _NAME, _WEIGHT, _REST, _LAST = range(5)


@dataclass(frozen=True)
class Axis:
    """One axis. `kind`: float and int take ranges such as 0-1 (+0.25); `choices`: what it offers, "loras" and "presets"
    those that there are; `order`: an axis with a smaller one acts first, whichever of X, Y and Z it is."""

    label: str
    order: int
    change: Callable[[dict, object, PresetStore], dict]
    """(recipe as data, the axis' value, presets): the changed data; what was given is left as it is"""
    told: Callable[[object, Sequence[str]], str]
    """(value, labels of the recipe's LoRAs, empty where another axis decides them): what is written beside the grid"""
    kind: type = str
    choices: str | tuple[str, ...] | None = None
    decides_loras: bool = False


def axes() -> list[Axis]:
    """All of them."""
    by_position = [axis for k in range(LORAS) for axis in (
        Axis(f"LoRA {k + 1} weight", _WEIGHT, partial(_set_weight, k), partial(_of_lora, k, "weight"), float),
        Axis(f"LoRA {k + 1} schedule ({EXAMPLE})", _WEIGHT, partial(_set_schedule, k),
             partial(_of_lora, k, "schedule")),
        Axis(f"LoRA {k + 1} negative weight", _WEIGHT, partial(_set_negative, k),
             partial(_of_lora, k, "negative weight"), float),
        Axis(f"LoRA {k + 1} name", _NAME, partial(_set_name, k), lambda value, labels: str(value), choices="loras",
             decides_loras=True))]
    return [
        Axis("Enabled", _REST, lambda data, value, store: {**data, "enabled": _yes(value)},
             lambda value, labels: "SciArt on" if _yes(value) else "SciArt off", choices=(YES, NO)),
        Axis("Preset", _START, _start_from, partial(_named, "Preset"), choices="presets", decides_loras=True),
        Axis("NAME=WEIGHT", _WEIGHT, _set_by_name, lambda value, labels: str(value)),
        *by_position,
        Axis("Combine", _REST, lambda data, value, store: {**data, "combine": value}, partial(_named, "Combine"),
             choices=METHODS),
        Axis("Compose", _REST, lambda data, value, store: {**data, "compose": value}, partial(_named, "Compose"),
             choices=COMPOSES),
        Axis("Combine strength", _REST, partial(_set_in, "combining", "strength"), partial(_named, "Combine strength"),
             float),
        Axis("Guidance strength", _REST, partial(_set_in, "guidance", "strength"), partial(_named, "Strength"), float),
        Axis("Noises", _REST, partial(_set_in, "guidance", "noises"), partial(_named, "Noises"), int),
        Axis("Mask threshold", _LAST, _set_threshold, partial(_named, "Mask threshold"), float),
    ]


def edited(base: object, edits: Iterable[tuple[Axis, object]], store: PresetStore) -> dict:
    """The recipe of a cell, as data: the panel's or the API's recipe, changed by the cell's value on each axis.

    base: as the script takes it; one that is empty starts from nothing. Raises `SciArtError` for what cannot be.
    """
    edits = sorted(edits, key=lambda edit: edit[0].order)
    if is_off(base):
        data = _switched_off(base, [axis.label for axis, _ in edits], store)
    else:
        data = filled_in(parse_recipe(base), store)
    for axis, value in edits:
        data = axis.change(data, value, store)
    if data.get("enabled", True):
        parse_recipe(data)
    return data


def labels_of(data: dict) -> list[str]:
    """How a plot calls the LoRAs of a recipe."""
    return [lora.get("name") or lora.get("role") or "?" for lora in data.get("loras", [])]


def _switched_off(base: object, labels: Sequence[str], store: PresetStore) -> dict:
    """What is kept of a recipe that leaves the host alone."""
    if base is None or (isinstance(base, str) and (not base.strip() or base.strip() == "null")):
        return {}
    recipe = parse_recipe(base)
    if not recipe.loras and recipe.preset is None:
        return {}
    if "Enabled" not in labels:
        raise SciArtError("enabled", "SciArt is switched off, so that its axes would change nothing; switch it on, or "
                                     "add the axis Enabled")
    return filled_in(recipe, store)


def _start_from(data: dict, value: object, store: PresetStore) -> dict:
    roles = {"roles": data["roles"]} if data.get("roles") else {}
    return {**store.read(str(value)).data["recipe"], **roles}


def _at(data: dict, k: int) -> dict:
    loras = data.get("loras", [])
    if k >= len(loras):
        held = f"the recipe has {len(loras)}" if loras else "the recipe has none"
        raise SciArtError(f"loras[{k}]", f"there is no LoRA {k + 1} for the axis; {held}")
    return loras[k]


def _replaced(data: dict, k: int, lora: dict) -> dict:
    loras = list(data.get("loras", []))
    loras[k:k + 1] = [lora]
    return {**data, "loras": loras}


def _without(lora: dict, *fields: str) -> dict:
    return {key: value for key, value in lora.items() if key not in fields}


def _set_weight(k: int, data: dict, value: object, store: PresetStore) -> dict:
    weight = round(float(value), 8)
    return _replaced(data, k, {**_without(_at(data, k), "schedule", "curve"), "weight": weight})


def _set_schedule(k: int, data: dict, value: object, store: PresetStore) -> dict:
    return _replaced(data, k, {**_without(_at(data, k), "weight"), "schedule": str(value)})


def _set_negative(k: int, data: dict, value: object, store: PresetStore) -> dict:
    lora = _at(data, k)
    kept = _without(lora.get("negative") or {}, "schedule", "curve")
    return _replaced(data, k, {**lora, "negative": {**kept, "weight": round(float(value), 8)}})


def _set_name(k: int, data: dict, value: object, store: PresetStore) -> dict:
    if k == len(data.get("loras", [])):
        return _replaced(data, k, {"name": str(value), "weight": 1.0})
    return _replaced(data, k, {**_without(_at(data, k), "role"), "name": str(value)})


def _set_by_name(data: dict, value: object, store: PresetStore) -> dict:
    name, given = named_value(str(value))
    if not name:
        raise SciArtError("loras", f"cannot read {shown(value)}; expected NAME=WEIGHT or NAME=SCHEDULE, for example "
                                   f"child=0.5 or child={EXAMPLE}")
    labels = labels_of(data)
    k = labels.index(name) if name in labels else len(labels)
    if k == len(labels):
        data = _replaced(data, k, {"name": name})
    weight = number_in(given)
    if weight is not None:
        return _set_weight(k, data, weight, store)
    try:
        check_points(given)
    except SciArtError as error:
        raise SciArtError("loras", f"{shown(given)} is no weight for {name}; expected a number, or a schedule such as "
                                   f"{EXAMPLE} ({error.message})") from None
    return _set_schedule(k, data, given, store)


def _set_in(group: str, field: str, data: dict, value: object, store: PresetStore) -> dict:
    value = round(value, 8) if isinstance(value, float) else value
    return {**data, group: {**data.get(group, {}), field: value}}


def _set_threshold(data: dict, value: object, store: PresetStore) -> dict:
    """Of the masks that the recipe's way to compose has."""
    where = ("masking", "threshold") if data.get("compose") == "masked" else ("guidance", "mask_threshold")
    return _set_in(*where, data, value, store)


def _yes(value: object) -> bool:
    if value not in (YES, NO):
        raise SciArtError("enabled", f"unknown value {shown(value)}; accepted: {YES}, {NO}")
    return value == YES


def _named(title: str, value: object, labels: Sequence[str]) -> str:
    return f"{title}: {_short(value)}"


def _of_lora(k: int, what: str, value: object, labels: Sequence[str]) -> str:
    return f"{labels[k] if k < len(labels) else f'LoRA {k + 1} {what}'}: {_short(value)}"


def _short(value: object) -> str:
    return f"{round(value, 8):g}" if isinstance(value, float) else str(value)
