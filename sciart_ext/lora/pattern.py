"""Regular expressions that stand in a file, matched in time that grows with their length times the text's at most.

Python's own matcher tries one way after another, and a stranger's pattern can make it try for years. Here all ways are
followed at once (K. Thompson, Regular expression search algorithm, CACM 11, 1968). What of Python's notation has no
such form, a backreference or a look around, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .pattern_notation import PatternError, read_notation

LONGEST = 512
"""characters of a pattern"""
MOST_STATES = 1000
MOST_PARTS = 10_000
"""of a pattern whose repetitions are written out: those of nothing have no states"""
STEP, VISIT = 1, 10
"""what a character costs whose followers are known, and a state that is found: about their times"""


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


class Pattern:
    """A regular expression, of which the whole text or a part of it after a `.` must be."""

    def __init__(self, text: str):
        if len(text) > LONGEST:
            raise PatternError(f"{len(text)} characters; at most {LONGEST} are accepted")
        self.states: list[_State] = []
        self._parts = 0
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        """which states follow on some, for a character: names of layers have much in common"""
        self._first: frozenset[int] = frozenset()
        self._ends: dict[tuple[frozenset[int], bool], bool] = {}
        """whether some states are a match where the text ends, which may be empty"""
        self._emit(read_notation(text))
        self._add(_State("match"))

    def matches_end_of(self, text: str, budget: Budget) -> bool:
        """Whether it matches all of the text, or all that follows one of its dots: PEFT's `(.*\\.)?(PATTERN)$`."""
        if not self._first:
            self._first = self._closed(frozenset([0]), budget, start=True)
        current = self._first
        budget.spend(STEP * len(text))
        for char in text:
            if (current, char) not in self._known:
                following = {number + 1 for number in current
                             if self.states[number].kind == "char" and self.states[number].test(char)}
                if char == ".":
                    following.add(0)
                self._known[current, char] = self._closed(frozenset(following), budget)
            current = self._known[current, char]
        if (current, text == "") not in self._ends:
            closed = self._closed(current, budget, start=text == "", end=True)
            self._ends[current, text == ""] = len(self.states) - 1 in closed
        return self._ends[current, text == ""]

    def _closed(self, states: frozenset[int], budget: Budget, start: bool = False, end: bool = False) -> frozenset[int]:
        """With all that are reached from them without a character, at the text's start, its end, or in between."""
        found: set[int] = set()
        waiting = list(states)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            budget.spend(VISIT)
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
