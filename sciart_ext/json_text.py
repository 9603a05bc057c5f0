"""JSON of strangers: numbers that nobody writes are refused before they are made."""

from __future__ import annotations

import json

MOST_DIGITS = 100


def read_json(text: str | bytes) -> object:
    """The value of a JSON text. Raises `ValueError`, also for numbers of too many digits, NaN and nesting too deep."""
    try:
        return json.loads(text, parse_int=_whole, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")
