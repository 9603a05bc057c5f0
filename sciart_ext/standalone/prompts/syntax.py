"""What a prompt says beside its words, as the WebUI reads it: parts joined by AND, edits by step, emphasis, BREAK.

A prompt is read in this order. AND parts it (`parts_of`); an edit, `[from:to:when]` or `[one|other]`, makes the texts
of its steps (`texts_of`); brackets in such a text, `(word:1.3)` or `[word]`, give its pieces their weights
(`pieces_of`). No torch is needed for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ...errors import SciArtError, shown

STRONGER, WEAKER = 1.1, 1 / 1.1
"""what round and square brackets without a number multiply a weight by"""
MAX_NESTED_EDITS = 100
Held = TypeVar("Held")


class Part(NamedTuple):
    """One of the texts that AND joins, and how much it counts."""

    text: str
    weight: float


class Piece(NamedTuple):
    """A run of text of one weight; or BREAK, after which a new chunk begins."""

    text: str
    weight: float
    is_break: bool = False


def parts_of(prompt: str) -> list[Part]:
    """What AND joins: `a :1.2 AND b`. A number after the last colon is a weight, also where there is no AND."""
    found = []
    for text in re.split(r"\bAND\b", prompt):
        text = text.rstrip()
        weighted = re.search(r":\s*([-+]?(?:\d+\.?|\d*\.\d+))$", text)
        weight = _number(weighted[1], text) if weighted else 1.0
        found.append(Part(text[:weighted.start()].rstrip() if weighted else text, weight))
    return found


def texts_of(prompt: str, steps: int) -> list[tuple[int, str]]:
    """[(last step, text until then)] over so many steps, counted from 1.

    A text holds while a sampler that counts from 0 is at its last step or before: so the first text has one step more,
    as in the WebUI. Where a `|` is in no square brackets, nothing is edited, as there.
    """
    parsed = _parsed(prompt)
    if parsed is None:
        return [(steps, prompt)]
    ends = {steps, *(end for node in _nodes(parsed) for end in node.ends(steps))}
    return [(end, _told(parsed, end, steps)) for end in sorted(ends)]


def held_at(edits: Sequence[tuple[int, Held]], evaluation: int) -> Held:
    """What holds at an evaluation, counted from 0, of (last evaluation, what holds until then). After the last it is
    the first again, as in the WebUI, where a sampler may evaluate more often than it has steps."""
    return next((held for last, held in edits if evaluation <= last), edits[0][1])


def pieces_of(text: str) -> list[Piece]:
    """The text without its brackets and escapes, in pieces of one weight each; at least one.

    `(x)` multiplies by 1.1, `(x:1.3)` by 1.3, `[x]` divides by 1.1; a bracket that is left open holds to the end, one
    that closes nothing is text. A backslash makes the bracket after it text. BREAK in brackets is a word.
    """
    import numpy as np  # of thousands of brackets

    pieces: list[list] = []  # [text, whether it is BREAK]
    opened: dict[str, list[int]] = {"(": [], "[": []}
    factors: list[tuple[int, int | None, float]] = []  # of pieces from, to

    def close(bracket: str, factor: float) -> None:
        factors.append((opened[bracket].pop(), len(pieces), factor))

    for mark in _MARKS.finditer(text):
        told = mark[0]
        if told[0] == "\\":
            pieces.append([told[1:], False])
        elif told in opened:
            opened[told].append(len(pieces))
        elif mark["weight"] is not None and opened["("]:
            close("(", _number(mark["weight"], told))
        elif told == ")" and opened["("]:
            close("(", STRONGER)
        elif told == "]" and opened["["]:
            close("[", WEAKER)
        else:
            first, *others = re.split(r"\s*\bBREAK\b\s*", told)
            pieces.append([first, False])
            for other in others:
                pieces += [["BREAK", True], [other, False]]
    factors += [(start, None, STRONGER) for start in opened["("]]
    factors += [(start, None, WEAKER) for start in opened["["]]
    weights = np.array([-1.0 if is_break else 1.0 for _, is_break in pieces])
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for start, end, factor in factors:
            weights[start:end] *= factor
    if not np.isfinite(weights).all():
        raise SciArtError("prompt", "the weights of its brackets multiply to more than a number can be")
    return _joined(Piece(said, weight, is_break and weight == -1)
                   for (said, is_break), weight in zip(pieces, weights.tolist()))


def plain_text(text: str) -> str:
    """The text's words, without brackets and escapes."""
    return "".join(" " if piece.is_break else piece.text for piece in pieces_of(text))


_MARKS = re.compile(r"""
    \\[()\[\]\\]?               # what is escaped; a backslash before anything else is dropped
    | [(\[]
    | :\s*(?P<weight>[+-]?[.\d]+)\s*\)
    | [)\]:]
    | [^\\()\[\]:]+
""", re.VERBOSE)


def _joined(pieces: Iterator[Piece]) -> list[Piece]:
    """Neighbours of one weight as one, for a word may go on from one to the other."""
    found: list[Piece] = []
    for piece in pieces:
        if found and not (piece.is_break or found[-1].is_break) and found[-1].weight == piece.weight:
            found[-1] = found[-1]._replace(text=found[-1].text + piece.text)
        else:
            found.append(piece)
    return found or [Piece("", 1.0)]


class _Edit(NamedTuple):
    """`[before:after:when]`: the one until this step, then the other."""

    before: list
    after: list
    when: str

    def last(self, steps: int) -> int:
        """The last step of the first text; a number with a point is a share of all steps."""
        when = float(self.when) * (steps if "." in self.when else 1)
        return int(max(min(when, steps), 0))

    def ends(self, steps: int) -> list[int]:
        return [last] if (last := self.last(steps)) >= 1 else []

    def at(self, step: int, steps: int) -> list:
        return self.before if step <= self.last(steps) else self.after

    def inner(self) -> list[list]:
        return [self.before, self.after]


class _Turns(NamedTuple):
    """`[one|other]`: another one at each step, in turn."""

    choices: list[list]

    def ends(self, steps: int) -> range:
        return range(1, steps + 1)

    def at(self, step: int, steps: int) -> list:
        return self.choices[(step - 1) % len(self.choices)]

    def inner(self) -> list[list]:
        return self.choices


_PLAIN = re.compile(r"(?:[^\\\[\]():|]|\\.)+")
_WHEN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\]", re.ASCII)


class _Bracketed(NamedTuple):
    """What a pair of brackets holds, and where the text goes on after it; nested: how deep edits are in it."""

    parts: list
    end: int
    nested: int


def _parsed(text: str) -> list | None:
    """The text as a list of texts and edits; None where it cannot be read, and is text as it is."""
    pairs: dict[int, _Bracketed] = {}
    for opening in reversed([found.start() for found in re.finditer(r"[(\[]", text)]):  # inner ones first
        pair = (_round if text[opening] == "(" else _square)(text, opening, pairs)
        if pair is not None:
            pairs[opening] = pair
            if pair.nested > MAX_NESTED_EDITS:
                raise SciArtError("prompt", f"edits are nested in edits; at most {MAX_NESTED_EDITS} deep is accepted")
    parts, at = [], 0
    while at < len(text):
        found = _read(text, at, pairs)
        parts += found.parts
        at = found.end
        if at < len(text):
            if text[at] not in "[]():":
                return None
            parts.append(text[at])
            at += 1
    return parts


def _read(text: str, at: int, pairs: Mapping[int, _Bracketed]) -> _Bracketed:
    """Texts and whole brackets from here to where something else is."""
    parts, nested = [], 0
    while at < len(text):
        if plain := _PLAIN.match(text, at):
            parts.append(plain[0])
            at = plain.end()
        elif pair := pairs.get(at):
            parts += pair.parts
            at, nested = pair.end, max(nested, pair.nested)
        else:
            break
    return _Bracketed(parts, at, nested)


def _round(text: str, opening: int, pairs: Mapping[int, _Bracketed]) -> _Bracketed | None:
    """`(x)` or `(x:y)`, which stay in the text."""
    inner = _read(text, opening + 1, pairs)
    parts = inner.parts
    if text[inner.end:inner.end + 1] == ":":
        second = _read(text, inner.end + 1, pairs)
        inner = _Bracketed([*parts, ":", *second.parts], second.end, max(inner.nested, second.nested))
    return _closed(text, opening, inner, ")")


def _square(text: str, opening: int, pairs: Mapping[int, _Bracketed]) -> _Bracketed | None:
    """`[x]`, which stays in the text, or an edit."""
    inner = _read(text, opening + 1, pairs)
    mark = text[inner.end:inner.end + 1]
    if mark == "|":
        choices = [inner]
        while text[choices[-1].end:choices[-1].end + 1] == "|":
            choices.append(_read(text, choices[-1].end + 1, pairs))
        if text[choices[-1].end:choices[-1].end + 1] != "]":
            return None
        return _edit(_Turns([choice.parts for choice in choices]), choices[-1].end + 1, choices)
    if mark != ":":
        return _closed(text, opening, inner, "]")
    if when := _WHEN.match(text, inner.end + 1):
        return _edit(_Edit([], inner.parts, when[1]), when.end(), [inner])
    after = _read(text, inner.end + 1, pairs)
    if text[after.end:after.end + 1] == ":" and (when := _WHEN.match(text, after.end + 1)):
        return _edit(_Edit(inner.parts, after.parts, when[1]), when.end(), [inner, after])
    return None


def _closed(text: str, opening: int, inner: _Bracketed, bracket: str) -> _Bracketed | None:
    """Brackets that stay in the text, where this one closes them."""
    if text[inner.end:inner.end + 1] != bracket:
        return None
    end = inner.end + 1
    if not inner.nested:
        return _Bracketed([text[opening:end]], end, 0)
    return _Bracketed([text[opening], *inner.parts, bracket], end, inner.nested)


def _edit(node: _Edit | _Turns, end: int, held: list[_Bracketed]) -> _Bracketed:
    return _Bracketed([node], end, 1 + max(one.nested for one in held))


def _nodes(parts: list) -> Iterator[_Edit | _Turns]:
    """All edits in it, those in edits too."""
    for part in parts:
        if not isinstance(part, str):
            yield part
            for inner in part.inner():
                yield from _nodes(inner)


def _told(parts: list, step: int, steps: int) -> str:
    return "".join(part if isinstance(part, str) else _told(part.at(step, steps), step, steps) for part in parts)


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise SciArtError("prompt", f"{shown(text)} is not a number, in {shown(where)}") from None
    if not math.isfinite(number):
        raise SciArtError("prompt", f"a weight of it is too large, in {shown(where)}")
    return number
