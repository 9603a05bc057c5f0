"""Block weights: the factor a LoRA's weight has in a layer, by the layer's block and by its kind.

Each is a number or a schedule over the pass. A layer's factor is its block's (the label's, such as IN04, before the
group's, in) times its kind's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SciArtError, did_you_mean, shown
from ..lora.blocks import BASE, GROUPS, KINDS, LABELS, LISTS, group_of, kind_of, label_of
from .schedule import MAX_TEXT, MAX_WEIGHT, Points, check_number, check_points, placed, weight_at
from .schedule_text import may_be_decimal, number_in, numbers_in, plain

NAMES = (*GROUPS, *KINDS, *LABELS)
_OTHER_NAMES = {"input": "in", "middle": "mid", "output": "out", "feedforward": "feed_forward"}


def check_blocks(value: Any) -> dict | list:
    """Block weights as JSON data: factors by name, or a list of 12, 17, 20 or 26 numbers (as text too).

    Raises `SciArtError` for what is neither; a field of it names the block.
    """
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise SciArtError("", f"{len(value)} characters; at most {MAX_TEXT} are accepted")
        if may_be_decimal(value):
            raise SciArtError("", f"{shown(value)}: its commas may stand between numbers or in them; write 0.5, or "
                                  "semicolons between the numbers")
        value = numbers_in(value)
    if isinstance(value, (list, tuple)):
        if len(value) not in LISTS:
            known = ", ".join(map(str, sorted(LISTS)))
            raise SciArtError("", f"{len(value)} block weights; accepted: lists of {known}")
        return [check_number(number, f"[{i}]", -MAX_WEIGHT, MAX_WEIGHT) for i, number in enumerate(value)]
    if not isinstance(value, dict):
        raise SciArtError("", "expected factors by block such as {'in': 1, 'OUT03': 0.5, 'attention': '0@0, 1@1'}, or "
                              f"a list of block weights, got {shown(value)}")
    checked = {}
    for given, factor in value.items():
        name = block_name(str(given))
        if name is None:
            raise SciArtError(str(given), f"unknown block or kind; {did_you_mean(str(given), NAMES)}")
        if name in checked:
            raise SciArtError(str(given), f"{name} is given twice; accepted: each block or kind once")
        checked[name] = _check_factor(factor, name)
    return checked


def _check_factor(factor: Any, name: str) -> float | list:
    number = number_in(factor) if isinstance(factor, str) else None
    if number is not None or not isinstance(factor, (str, list, tuple)):
        return check_number(factor if number is None else number, name, -MAX_WEIGHT, MAX_WEIGHT)
    if name == BASE:
        raise SciArtError(BASE, "prompts are encoded once, before the first step; accepted: a number")
    return [list(point) for point in check_points(factor, name)]


def block_name(text: str) -> str | None:
    """The block or kind of this name, however it is written: `in04` and `IN4` are IN04, `Output` is out; None: none."""
    name = plain(text).lower().replace("-", "_").replace(" ", "_")
    name = _OTHER_NAMES.get(name, name)
    if name in (*GROUPS, *KINDS):
        return name
    match = re.fullmatch(r"(in|out|m)_?([0-9]{1,2})|base", name)
    if match is None:
        return None
    label = BASE if match[1] is None else f"{match[1].upper()}{int(match[2]):02d}"
    return label if label in LABELS else None


@dataclass(frozen=True)
class Factor:
    """Of one layer: a number, times schedules that multiply it over the pass."""

    constant: float = 1.0
    schedules: tuple[Points, ...] = ()

    def placed(self, steps: int) -> Factor:
        """The same in a pass of so many steps, with its points by progress."""
        return replace(self, schedules=tuple(tuple(map(tuple, placed(one, steps))) for one in self.schedules))

    def at(self, progress: float) -> float:
        """Of schedules that are `placed`."""
        result = self.constant
        for points in self.schedules:
            result *= weight_at(points, "linear", progress)
        return result


class LayerFactors:
    """The factors of one LoRA, from its checked `blocks`. A list's own blocks have its values, the others 0."""

    def __init__(self, blocks: Mapping[str, Any] | Sequence[float] = ()):
        self._unlisted: set[str] = set()
        if isinstance(blocks, Mapping):
            named = dict(blocks)
        else:
            named = dict.fromkeys(LABELS, 0.0) if blocks else {}
            named.update(zip(LISTS[len(blocks)], blocks) if blocks else ())
            self._unlisted = set(named).difference(LISTS[len(blocks)]) if blocks else set()
        self._named = {name: value if isinstance(value, float) else float(value) if isinstance(value, int)
                       else tuple(tuple(point) for point in value) for name, value in named.items()}

    def unlisted(self, layers: Iterable[str]) -> list[str]:
        """Of these layers of a UNet, those in blocks that a list does not have: the LoRA does not act there."""
        return [layer for layer in layers if label_of(layer) in self._unlisted]

    @property
    def text_encoder(self) -> float:
        """The factor of the text encoders' weight."""
        return self._named.get(BASE, 1.0)

    def of(self, layer: str) -> Factor:
        """Of a UNet's layer, by its canonical name."""
        return self._factor(label_of(layer), group_of(layer), kind_of(layer))

    def varying(self) -> tuple[tuple[Points, ...], ...]:
        """The different schedules, or products of them, that layers may have."""
        places = [(None, None), *((label, _group_of_label(label)) for label in LABELS[1:]), (None, "out")]
        factors = (self._factor(label, group, kind) for label, group in places for kind in (None, *KINDS))
        return tuple(dict.fromkeys(factor.schedules for factor in factors if factor.schedules))

    def _factor(self, label: str | None, group: str | None, kind: str | None) -> Factor:
        block = self._named.get(label, self._named.get(group, 1.0))
        values = (block, self._named.get(kind, 1.0))
        constant = 1.0
        for value in values:
            constant *= value if isinstance(value, float) else 1.0
        return Factor(constant, tuple(value for value in values if not isinstance(value, float)))


def _group_of_label(label: str) -> str:
    return {"I": "in", "M": "mid", "O": "out"}[label[0]]


def left_out(name: str, layers: Iterable[str], blocks: Mapping[str, Any] | Sequence[float]) -> list[str]:
    """A note on a LoRA's layers in blocks that its list of block weights does not have; of none, nothing."""
    of_unet = [layer for layer in layers if layer.startswith("unet_")]
    missing = LayerFactors(blocks).unlisted(of_unet)
    labels = sorted({label_of(layer) for layer in missing})
    return [f"{name}: {len(missing)} of {len(of_unet)} UNet layers are left out, in blocks that a list of "
            f"{len(blocks)} block weights does not have ({', '.join(labels)})"] if missing else []


def varying_factors(blocks: Sequence[Mapping[str, Any] | Sequence[float]]) -> list[tuple[int, Factor]]:
    """(LoRA, factor) of each gate that LoRAs have besides their own, because the factor of some layers varies; blocks:
    of each LoRA."""
    return [(k, Factor(schedules=schedules)) for k, one in enumerate(blocks)
            for schedules in LayerFactors(one).varying()]
