"""What is promised of anything that strangers hand over, whatever it is."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import torch

from sciart_ext.errors import SciArtError
from sciart_ext.lora.exact_factors import has_directions, needs_model
from sciart_ext.lora.file import SMALL, LoraFile, inspect_lora, load_lora
from sciart_ext.recipe import Recipe, compile_plan, dump_recipe, parse_recipe, recipe_to_text
from sciart_ext.recipe.schedule import MAX_WEIGHT
from sciart_ext.report.plan_plot import plan_png, plan_svg

MOST_QUOTED = 200
LONGEST_MESSAGE = 2500
Outcome = tuple[object, str | None]


def check_file(path: Path) -> LoraFile | None:
    """Loading ends in finite deltas or in a refusal, and the list says the same."""
    return check_outcomes(path, outcome(inspect_lora, path), outcome(load_lora, path))


def check_outcomes(path: Path, listing: Outcome, loading: Outcome) -> LoraFile | None:
    """The same, of both as they were; of a large file the list has not seen the data."""
    (listed, refusal), (lora, again) = listing, loading
    if path.stat().st_size <= SMALL:
        assert refusal == again, f"listed: {refusal}; loaded: {again}"
    if lora is None:
        return None
    assert listed == lora.report(), f"listed: {listed}; loaded: {lora.report()}"
    for name, delta in lora.layers.items():
        assert all(torch.isfinite(tensor).all() for tensor in delta.tensors), f"{name} is not finite"
        if has_directions(name, delta) and not needs_model(delta):
            assert len(delta.shape) in (2, 4) and min(delta.shape) > 0, f"{name} has shape {delta.shape}"
    return lora


def outcome(reader: Callable, path: Path) -> Outcome:
    """What it gives, or the refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reader(path), None
    except SciArtError as refusal:
        assert refusal.field == path.name, f"the refusal is of {refusal.field!r}"
        assert len(refusal.message) < 1500, f"a message of {len(refusal.message)} characters"
        str(refusal).encode("utf-8")
        return None, str(refusal)


def check_recipe(value: object, steps: int = 20, png: bool = False) -> Recipe | None:
    """A recipe that is read is kept, planned and drawn; anything else is refused in few words. As data and as a text
    it is the same."""
    recipe = _recipe_of(value)
    text = None if isinstance(value, (str, bytes)) else _json_of(value)
    if text is not None:
        again = _recipe_of(text)
        assert again == recipe, f"as data {recipe}, as a text {again}"
    if recipe is not None:
        _check_kept(recipe)
        if recipe.enabled:
            _check_planned(recipe, steps, png)
    return recipe


def _recipe_of(value: object) -> Recipe | None:
    try:
        return parse_recipe(value)
    except SciArtError as refusal:
        told = f"{refusal.field}: {refusal.message}"
        told.encode("utf-8")
        assert refusal.field and refusal.message, f"nothing is named: {told}"
        assert len(refusal.message) < LONGEST_MESSAGE, f"a message of {len(refusal.message)} characters"
        if len(told) > MOST_QUOTED:
            _check_quotes(told, value)
        return None


def _check_quotes(told: str, value: object) -> None:
    for given in _long_texts(value):
        for start in range(len(told) - MOST_QUOTED):
            assert told[start:start + MOST_QUOTED + 1] not in given, f"quotes too much: {told}"


def _long_texts(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (str, bytes)) and len(one) > MOST_QUOTED:
            yield one if isinstance(one, str) else one.decode("latin-1")
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one


def _json_of(value: object) -> str | None:
    """Its JSON text; None where Python cannot write one."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return None


def _check_kept(recipe: Recipe) -> None:
    data, text = dump_recipe(recipe), recipe_to_text(recipe)
    text.encode("utf-8")
    assert "\n" not in text and "\r" not in text, "the infotext has several lines"
    for kept in (data, text, json.loads(json.dumps(data))):
        assert parse_recipe(kept) == recipe, f"{recipe} is read back as {parse_recipe(kept)}"


def _check_planned(recipe: Recipe, steps: int, png: bool) -> None:
    plan = compile_plan(recipe, steps, max(steps // 3, 1))
    most = MAX_WEIGHT**3  # a weight, times a block's factor, times a kind's
    for each in (plan.first, plan.hires):
        progress = each.progress()
        assert len(progress) == each.steps and progress == sorted(progress) and 0 <= progress[0] <= progress[-1] <= 1
        for row in each.rows():
            for gate in (*each.te_gates(row), *(gate for p in {*progress[:2], *progress[-2:], 0.5}
                                               for gate in each.gates(p, row))):
                assert math.isfinite(gate) and abs(gate) <= most, f"a gate of {gate}"
    if steps <= 50:
        json.dumps(plan.table(), allow_nan=False)
        ElementTree.fromstring(plan_svg(plan))
        if png:
            assert plan_png(plan, 320, 200).startswith(b"\x89PNG")
