"""JSON of strangers: read and looked at with limits, so that whoever works with it later needs none."""

from __future__ import annotations

import json
import math

from .errors import SciArtError

MOST_DIGITS = 100
MOST_DEPTH = 32
MOST_VALUES = 300_000


def read_json(text: str | bytes) -> object:
    """The value of a JSON text. Raises `ValueError`, also for numbers of too many digits, NaN and nesting too deep."""
    try:
        return json.loads(text, parse_int=_whole, parse_float=_fraction, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def check_json(value: object, field: str) -> None:
    """Raises `SciArtError` for what no JSON text says, and for what is nested too deep, has too many values, numbers of
    too many digits, or halves of characters (lone surrogates), which cannot be written anywhere."""
    level, count = [value], 0
    for _ in range(MOST_DEPTH + 1):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.keys()
                inner += one.values()
            elif isinstance(one, (list, tuple)):
                inner += one
            else:
                _check_single(one, field)
        count += len(inner)
        if count > MOST_VALUES:
            raise SciArtError(field, f"more than {MOST_VALUES} values")
        if not inner:
            return
        level = inner
    raise SciArtError(field, f"nested too deep; accepted: {MOST_DEPTH} levels")


def _check_single(value: object, field: str) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise SciArtError(field, "a text with half a character (a lone surrogate), which cannot be written"
                              ) from None
    elif isinstance(value, int):
        if abs(value) >= 10**MOST_DIGITS:
            raise SciArtError(field, f"a number of more than {MOST_DIGITS} digits")
    elif value is not None and not isinstance(value, float):
        raise SciArtError(field, f"{type(value).__name__} is nothing that JSON has")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large a number")
    return number


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
