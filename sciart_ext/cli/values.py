"""Values of options: numbers within bounds, choices, seeds. A wrong one is refused in the option's own name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

from ..errors import SciArtError, nearest, shown
from ..recipe.schedule_text import number_in, plain

MOST_SEEDS = 1000
HIGHEST_SEED = 2**63 - 1


class Number(click.ParamType):
    """A number from low to high, with decimal point or comma; whole: without a fraction; told: what is accepted, where
    more is to be said than the bounds."""

    def __init__(self, low: float, high: float, whole: bool = True, told: str = ""):
        self.low, self.high, self.whole = low, high, whole
        self.accepted = told or f"{low:g} to {high if whole else format(high, 'g')}"
        self.name = "INTEGER" if whole else "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        field = param.human_readable_name.replace("_", "-").lower() if param else "number"
        found = value if isinstance(value, (int, float)) else self._read(value)
        if found is None:
            what = "a whole number" if self.whole else "a number such as 7.5"
            raise SciArtError(field, f"{shown(value)} is not {what}; accepted: {self.accepted}")
        if not self.low <= found <= self.high:
            raise SciArtError(field, f"{shown(found)} is out of range; accepted: {self.accepted}")
        return found

    def _read(self, text: str) -> float | None:
        if self.whole:
            try:
                return int(plain(text))
            except ValueError:
                return None
        return None if "%" in text else number_in(text)


class OneOf(click.ParamType):
    """One of some words, in whatever case; `words` are asked for when they are needed."""

    def __init__(self, name: str, words: Callable[[], Iterable[str]], listed: bool = False):
        self.name, self.words, self.listed = name, words, listed

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join(self.words()) if self.listed else self.name

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = {word.lower(): word for word in self.words()}
        if value.lower() in known:
            return known[value.lower()]
        field = param.human_readable_name.replace("_", "-").lower() if param else self.name.lower()
        near = nearest(value, known.values())
        raise SciArtError(field, f"{shown(value)} is not known; " + (f"did you mean {near!r}? " if near else "")
                          + f"accepted: {', '.join(known.values())}")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words() if word.lower().startswith(incomplete.lower())]


class Word(click.ParamType):
    """Any word; a shell completes those that are known."""

    def __init__(self, name: str, words: Callable[[], Iterable[str]]):
        self.name, self.words = name, words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words() if word.startswith(incomplete)]


class Seeds(click.ParamType):
    """Seeds as they are listed: `1-20`, `3,7,11`, `1-4,9`."""

    name = "SEEDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        found: list[int] = []
        for part in plain(value).split(","):
            first, dash, last = part.strip().partition("-")
            if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
                raise SciArtError("seeds", f"cannot read {shown(value)}; accepted: such as 1-20 or 3,7,11, seeds from "
                                           f"0 to {HIGHEST_SEED}")
            low, high = int(first), int(last or first)
            if not low <= high <= HIGHEST_SEED or high - low >= MOST_SEEDS:
                raise SciArtError("seeds", f"{shown(part.strip())} is out of range; accepted: the smaller seed first, "
                                           f"0 to {HIGHEST_SEED}, at most {MOST_SEEDS} of them")
            found += range(low, high + 1)
        twice = next((seed for k, seed in enumerate(found) if seed in found[:k]), None)
        if twice is not None:
            raise SciArtError("seeds", f"{twice} is listed twice")
        if len(found) > MOST_SEEDS:
            raise SciArtError("seeds", f"{len(found)} of them; accepted: at most {MOST_SEEDS}")
        return found
