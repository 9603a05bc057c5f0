"""Regular expressions that stand in a file, matched in time that grows with their length times the text's at most.

Python's own matcher tries one way after another, and a stranger's pattern can make it try for years. Here all ways are
followed at once (K. Thompson, Regular expression search algorithm, CACM 11, 1968). What of Python's notation has no
such form, a backreference or a look around, is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from .pattern_notation import PatternError, read_notation

LONGEST = 512
"""characters of a pattern"""
MOST_STATES = 1000
MOST_PARTS = 10_000
"""of a pattern whose repetitions are written out: those of nothing have no states"""
STEP, TEST, VISIT = 1, 3, 10
"""what a character costs whose followers are known, a state that may take one whose followers are not, and a state that
is found or made: about their times"""


class Budget:
    """How much may still be done; spent by all who share it."""

    def __init__(self, left: int):
        self.left = left

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise PatternError("takes too long to compare with the layers' names")


class _State(NamedTuple):
    """kind: "char" (test says which), "split" (to a or b), "jump" (to a), "start", "end", "match"."""

    kind: str
    test: Callable[[str], bool] | None = None
    a: int = 0
    b: int = 0


class _Row(dict):
    """States that are reached together; by a character, the row of those that follow, made when it is first asked for:
    names of layers have much in common."""

    def __init__(self, states: frozenset[int], after: Callable[[frozenset[int], str], _Row]):
        self.states = states
        self._after = after
        self.is_match: dict[bool, bool] = {}
        """where the text ends, which may be empty"""

    def __missing__(self, char: str) -> _Row:
        self[char] = self._after(self.states, char)
        return self[char]


class Pattern:
    """A regular expression, of which the whole text or a part of it after a `.` must be."""

    def __init__(self, text: str, budget: Budget):
        if len(text) > LONGEST:
            raise PatternError(f"{len(text)} characters; at most {LONGEST} are accepted")
        self.states: list[_State] = []
        self._parts = 0
        self._budget = budget
        self._rows: dict[frozenset[int], _Row] = {}
        self._emit(read_notation(text))
        self._add(_State("match"))

    def matches_end_of(self, text: str) -> bool:
        """Whether it matches all of the text, or all that follows one of its dots: PEFT's `(.*\\.)?(PATTERN)$`."""
        self._budget.spend(STEP * len(text))
        row = self._start
        for char in text:
            row = row[char]
        empty = text == ""
        if empty not in row.is_match:
            row.is_match[empty] = len(self.states) - 1 in self._closed(row.states, start=empty, end=True)
        return row.is_match[empty]

    @functools.cached_property
    def _start(self) -> _Row:
        return self._row(self._closed(frozenset([0]), start=True))

    def _after(self, states: frozenset[int], char: str) -> _Row:
        self._budget.spend(TEST * len(states))
        following = {number + 1 for number in states
                     if self.states[number].kind == "char" and self.states[number].test(char)}
        if char == ".":
            following.add(0)
        return self._row(self._closed(frozenset(following)))

    def _row(self, states: frozenset[int]) -> _Row:
        self._budget.spend(VISIT)
        return self._rows.setdefault(states, _Row(states, self._after))

    def _closed(self, states: frozenset[int], start: bool = False, end: bool = False) -> frozenset[int]:
        """With all that are reached from them without a character, at the text's start, its end, or in between."""
        found: set[int] = set()
        waiting = list(states)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            self._budget.spend(VISIT)
            found.add(number)
            state = self.states[number]
            if state.kind == "split":
                waiting += [state.a, state.b]
            elif state.kind == "jump":
                waiting.append(state.a)
            elif (state.kind == "start" and start) or (state.kind == "end" and end):
                waiting.append(number + 1)
        return frozenset(found)

    def _add(self, state: _State) -> int:
        if len(self.states) >= MOST_STATES:
            raise PatternError("its repetitions are too many")
        self.states.append(state)
        return len(self.states) - 1

    def _emit(self, node: tuple) -> None:
        kind, *inner = node
        self._parts += 1
        self._budget.spend(VISIT)
        if self._parts > MOST_PARTS:
            raise PatternError("its repetitions are too many")
        if kind == "char":
            self._add(_State("char", inner[0]))
        elif kind == "sequence":
            for one in inner[0]:
                self._emit(one)
        elif kind == "either":
            self._emit_either(inner[0])
        elif kind == "repeat":
            self._emit_repeat(*inner)
        else:
            self._add(_State(kind))

    def _emit_either(self, ways: list[tuple]) -> None:
        ends = []
        for way in ways[:-1]:
            fork = self._add(_State("split"))
            self._emit(way)
            ends.append(self._add(_State("jump")))
            self.states[fork] = _State("split", None, fork + 1, len(self.states))
        self._emit(ways[-1])
        for end in ends:
            self.states[end] = _State("jump", None, len(self.states))

    def _emit_repeat(self, node: tuple, least: int, most: int | None) -> None:
        for _ in range(least):
            self._emit(node)
        if most is None:
            fork = self._add(_State("split"))
            self._emit(node)
            self._add(_State("jump", None, fork))
            self.states[fork] = _State("split", None, fork + 1, len(self.states))
            return
        forks = []
        for _ in range(most - least):
            forks.append(self._add(_State("split")))
            self._emit(node)
        for fork in forks:
            self.states[fork] = _State("split", None, fork + 1, len(self.states))
