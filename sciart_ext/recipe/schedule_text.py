"""Numbers and schedules as people write them: `0.2@0, 0.65@0.5`, decimal commas, percent, steps, `0.8:start=5:stop=10`.

What has one meaning is read; what has none, or more than one, is refused. The panel reads the same
(javascript/sciart_1_text.js); a test compares them.
"""

from __future__ import annotations

import re

from ..errors import SciArtError, shown

# full-width forms, as East Asian keyboards give them; minus signs; spaces that do not break
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord("\u3000"): " ", ord("\u00a0"): " ", ord("\u202f"): " ", ord("\u2009"): " ", ord("\u3001"): ",",
    ord("\u2212"): "-"}
_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(%?)")
_STEP = re.compile(r"s(?:teps?)?\s*([0-9]{1,6})", re.IGNORECASE)
_BOUND = re.compile(r"\b(start|stop|steps?)\s*=", re.IGNORECASE)
_NAMED = re.compile(r"(.*?\S.*?)=([^=]*[^=\s][^=]*(?:\b(?:start|stop|steps?)\s*=[^=]*)*)", re.IGNORECASE | re.DOTALL)
_BETWEEN = " \t\n:,;"
_LONGEST = 100
"""characters of a place and a weight: more are no numbers"""

Pair = tuple[float | str, float]


def plain(text: str) -> str:
    """The text with digits and marks as they are on a European keyboard."""
    return text.translate(_PLAIN).strip()


def number_in(text: str) -> float | None:
    """The number of a text, with decimal point or comma, perhaps in percent; None where it is none."""
    match = _NUMBER.fullmatch(plain(text))
    if match is None or match[1].endswith(","):
        return None
    value = float(match[1].replace(",", "."))
    return value / 100 if match[2] else value


def named_value(text: str) -> tuple[str, str]:
    """NAME and SPEC of `NAME=SPEC`, a weight or a schedule; both empty where it is none. Names may have a `=`, as
    `start=5` in a SPEC has."""
    match = _NAMED.fullmatch(plain(text))
    return (text.strip()[:match.end(1)].strip(), match[2].strip()) if match is not None else ("", "")


def numbers_in(text: str, field: str = "") -> list[float]:
    """The numbers of a list, with commas or semicolons between them; with semicolons commas are decimal."""
    text = plain(text)
    parts = [part.strip() for part in text.split(";" if ";" in text else ",")]
    found = [number_in(part) for part in parts]
    if None in found:
        part = parts[found.index(None)]
        what = shown(part) if part else f"{shown(text)}: a number is missing between its commas, or after the last"
        raise SciArtError(field, f"cannot read {what}; expected numbers with commas between them")
    return found


def may_be_decimal(text: str) -> bool:
    """Whether a list's commas look as if they stood in numbers, not between them: `0,5`."""
    text = plain(text)
    return not ("." in text or ";" in text) and re.search(r"[01],[2-9](?![0-9])", text) is not None


def points_in(text: str, field: str = "schedule") -> list[Pair]:
    """The (place, weight) of a schedule's text. Raises `SciArtError` for what cannot be read, or not in one way only.

    There are as many points as there are `@`; a comma is a decimal one where only that gives each of them a weight and
    a place, and where no number of the text has a decimal point. One number alone is a weight at progress 0.
    """
    given, text = text, plain(text)
    if _BOUND.search(text):
        return _bounded(text, given, field)
    weight, *between = text.split("@")
    if not between:
        return [(0.0, _one(weight, text, given, field))]
    weights, places = [_one(weight, text, given, field)], []
    for piece in between[:-1]:
        place, weight = _place_and_weight(piece, text, given, field)
        places.append(place)
        weights.append(weight)
    places.append(_place(between[-1], text, given, field))
    return list(zip(places, weights))


def _one(part: str, text: str, given: str, field: str) -> float:
    found = _number(part, text)
    if found is None:
        raise _unread(part if "@" in text else given, given, field)
    return found


def _number(part: str, text: str) -> float | None:
    """A number of this text: with a comma only where no other number of it has a point."""
    return None if "," in part and "." in text else number_in(part)


def _place(part: str, text: str, given: str, field: str) -> float | str:
    found = _place_or_none(part, text)
    if found is None:
        raise _unread(part, given, field)
    return found


def _place_or_none(part: str, text: str) -> float | str | None:
    step = _STEP.fullmatch(part.strip())
    return f"s{int(step[1])}" if step is not None else _number(part, text)


def _place_and_weight(piece: str, text: str, given: str, field: str) -> Pair:
    """What stands between two `@`: the place of the one and the weight of the next, with a separator between them."""
    readings = []
    for match in re.finditer("[,;\n]", piece if len(piece) <= _LONGEST else ""):
        place, weight = _place_or_none(piece[:match.start()], text), _number(piece[match.end():], text)
        if place is not None and weight is not None:
            readings.append((place, weight))
    if len(readings) > 1:
        raise SciArtError(field, f"{shown(piece.strip())} in {shown(given)} has two meanings; write decimal points, or "
                                 "semicolons between the points")
    if not readings:
        raise _unread(piece, given, field)
    return readings[0]


def _bounded(text: str, given: str, field: str) -> list[Pair]:
    """`0.8:start=5:stop=10`, `0.8 step=5-10`, as sd-webui-lora-block-weight writes when a LoRA acts: from a step on,
    and no more from another one on."""
    weight, *rest = (part.strip(_BETWEEN) for part in _BOUND.split(text))
    found = number_in(weight)
    if found is None:
        raise SciArtError(field, f"cannot read {shown(given)}; expected a weight before start= or stop=, for example "
                                 "0.8:start=5:stop=10")
    bounds: dict[str, float | str] = {}
    for key, value in zip(map(str.lower, rest[::2]), rest[1::2]):
        first, dash, last = value.partition("-")
        parts = {"start": first, "stop": last} if key.startswith("step") and dash else {key: value}
        for name, part in parts.items():
            if name in bounds or name not in ("start", "stop"):
                raise SciArtError(field, f"cannot read {shown(given)}; expected start=STEP, stop=STEP or "
                                         "step=START-STOP, each once")
            bounds[name] = _bound(part, name, field)
    start, stop = bounds.get("start"), bounds.get("stop")
    if start is not None and stop is not None:
        if isinstance(start, str) != isinstance(stop, str):
            raise SciArtError(field, f"{shown(given)} starts and stops by different measures; accepted: both in steps, "
                                     "or both in percent")
        if _size(start) >= _size(stop):
            raise SciArtError(field, f"{shown(given)} stops before it starts; accepted: a stop after the start")
    points = [] if start is None else [(start, 0.0), (start, found)]
    return points if stop is None else [*points, (stop, found), (stop, 0.0)]


def _bound(part: str, name: str, field: str) -> float | str:
    """A step, or with a percent sign a share of the pass; never a number that may be either."""
    part = part.strip()
    step = re.fullmatch(r"s?([0-9]{1,6})", part, re.IGNORECASE)
    if step is not None:
        return f"s{int(step[1])}"
    share = number_in(part) if part.endswith("%") else None
    if share is None:
        raise SciArtError(field, f"{name}={part} is no step; accepted: a whole number from 1, the first step, or a "
                                 "share with a percent sign; points in progress go as 0@0.3, 0.8@0.3")
    return share


def _size(place: float | str) -> float:
    return float(place[1:]) if isinstance(place, str) else place


def _unread(part: str, given: str, field: str) -> SciArtError:
    place = f" at {shown(part.strip())}" if part.strip() not in ("", given.strip()) else ""
    return SciArtError(field, f"cannot read {shown(given.strip())}{place}; expected WEIGHT@PROGRESS with progress from "
                              "0 to 1, for example 0.2@0, 0.65@0.5, or WEIGHT@sSTEP")
