"""Regular expressions that stand in a file, matched in time that grows with their length and the text's, no faster.

Python's own matcher tries one way after another, and a stranger's pattern can make it try for years. Here all ways are
followed at once (K. Thompson, Regular expression search algorithm, CACM 11, 1968). What of Python's notation has no
such form, a backreference or a look around, is refused.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import NamedTuple

LONGEST = 512
"""characters of a pattern"""
MOST_STATES = 1000
MOST_PARTS = 10_000
"""of a pattern whose repetitions are written out: those of nothing have no states"""
DEEPEST = 30
"""groups within groups"""
_CLASSES = {"d": str.isdecimal, "w": lambda char: char.isalnum() or char == "_", "s": str.isspace}
_SPECIAL = set(".^$*+?{}[]\\|()")
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


class PatternError(ValueError):
    """A pattern that cannot be read, is too large, or needs more than can be matched in time."""


class Budget:
    """How many states may still be visited; spent by all who share it."""

    def __init__(self, steps: int):
        self.left = steps

    def spend(self) -> None:
        self.left -= 1
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
        self._emit(_Reader(text).read())
        self._add(_State("match"))

    def matches_end_of(self, text: str, budget: Budget) -> bool:
        """Whether it matches all of the text, or all that follows one of its dots: PEFT's `(.*\\.)?(PATTERN)$`."""
        if not self._first:
            self._first = self._closed(frozenset([0]), budget, start=True)
        current = self._first
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
            budget.spend()
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


class _Reader:
    """Reads Python's notation into nodes: ("char", test), ("sequence", nodes), ("either", nodes),
    ("repeat", node, least, most), ("start",), ("end",)."""

    def __init__(self, text: str):
        self.text = text
        self.place = 0
        self.depth = 0

    def read(self) -> tuple:
        node = self._either()
        if self.place < len(self.text):
            raise PatternError("a ) too many")
        return node

    def _peek(self) -> str:
        return self.text[self.place] if self.place < len(self.text) else ""

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise PatternError("it ends too early")
        self.place += 1
        return char

    def _take(self, text: str) -> bool:
        found = self.text.startswith(text, self.place)
        self.place += len(text) * found
        return found

    def _either(self) -> tuple:
        ways = [self._sequence()]
        while self._take("|"):
            ways.append(self._sequence())
        return ways[0] if len(ways) == 1 else ("either", ways)

    def _sequence(self) -> tuple:
        nodes = []
        while self._peek() and self._peek() not in "|)":
            nodes.append(self._repeated(self._atom()))
        return "sequence", nodes

    def _atom(self) -> tuple:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return "char", self._class()
        if char in "^$":
            return ("start",) if char == "^" else ("end",)
        if char == ".":
            return "char", lambda one: one != "\n"
        if char == "\\":
            return "char", self._escaped()
        if char in "*+?":
            raise PatternError("nothing to repeat")
        return "char", char.__eq__

    def _group(self) -> tuple:
        if self._take("?") and not self._take(":"):
            raise PatternError("accepted: groups ( ) and (?: )")
        self.depth += 1
        if self.depth > DEEPEST:
            raise PatternError(f"groups within groups; at most {DEEPEST} are accepted")
        node = self._either()
        self.depth -= 1
        if not self._take(")"):
            raise PatternError("a ) is missing")
        return node

    def _repeated(self, node: tuple) -> tuple:
        if self._take("*"):
            least, most = 0, None
        elif self._take("+"):
            least, most = 1, None
        elif self._take("?"):
            least, most = 0, 1
        elif (counts := self._counts()) is not None:
            least, most = counts
        else:
            return node
        self._take("?")  # of all that match it would be the shortest: whether any does is the same
        if (self._peek() and self._peek() in "*+?") or self._counts() is not None:
            raise PatternError("multiple repeat")
        return "repeat", node, least, most

    def _counts(self) -> tuple[int, int | None] | None:
        """`{2}`, `{2,}`, `{,3}` or `{2,3}`; anything else in braces is what it is."""
        end = self.text.find("}", self.place)
        if self._peek() != "{" or end < 0:
            return None
        low, comma, high = self.text[self.place + 1:end].partition(",")
        digits = set(string.digits)
        if not (low or comma) or not set(low) <= digits or not set(high) <= digits:
            return None
        if max(len(low), len(high)) > 4:
            raise PatternError("its repetitions are too many")
        self.place = end + 1
        least = int(low or 0)
        most = least if not comma else int(high) if high else None
        if most is not None and most < least:
            raise PatternError("min repeat greater than max repeat")
        return least, most

    def _escaped(self) -> Callable[[str], bool]:
        char = self._next()
        if char.lower() in _CLASSES:
            known = _CLASSES[char.lower()]
            return known if char.islower() else lambda one: not known(one)
        if char in _CONTROL:
            return _CONTROL[char].__eq__
        if char in string.ascii_letters + string.digits:
            raise PatternError(f"\\{char} is not accepted")
        return char.__eq__

    def _class(self) -> Callable[[str], bool]:
        negated, tests, first = self._take("^"), [], True
        while first or self._peek() != "]":
            first = False
            tests.append(self._member())
        self.place += 1
        if negated:
            return lambda one: not any(test(one) for test in tests)
        return lambda one: any(test(one) for test in tests)

    def _member(self) -> Callable[[str], bool]:
        low = self._next()
        if low == "\\":
            return self._escaped()
        if self._peek() == "-" and self.text[self.place + 1:self.place + 2] not in ("]", ""):
            self.place += 1
            high = self._next()
            if high == "\\" or high < low:
                raise PatternError("a range in [ ] that is none")
            return lambda one: low <= one <= high
        return low.__eq__


def is_plain(text: str) -> bool:
    """Whether it is a name: nothing in it but a dot means more than itself, and dots are dots."""
    return not set(text) & (_SPECIAL - {"."})
