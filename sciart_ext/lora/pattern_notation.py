"""Python's notation of regular expressions, read into nodes: ("char", test), ("sequence", nodes), ("either", nodes),
("repeat", node, least, most), ("start",), ("end",)."""

from __future__ import annotations

import string
from bisect import bisect_right
from collections.abc import Callable

DEEPEST = 30
"""groups within groups"""
_CLASSES = {"d": str.isdecimal, "w": lambda char: char.isalnum() or char == "_", "s": str.isspace}
_SPECIAL = set("^$*+?{}[]\\|()")
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


class PatternError(ValueError):
    """A pattern that cannot be read, is too large, or needs more than can be matched in time."""


def read_notation(text: str) -> tuple:
    """The node of a whole pattern. Raises `PatternError` for what is none, or has no such form."""
    return _Reader(text).read()


def is_plain(text: str) -> bool:
    """Whether it is a name: nothing in it but a dot means more than itself, and dots are dots."""
    return _SPECIAL.isdisjoint(text)


class _Reader:
    """Goes through a pattern from left to right."""

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
        if self._peek() and self._peek().lower() in _CLASSES:
            char = self._next()
            known = _CLASSES[char.lower()]
            return known if char.islower() else lambda one: not known(one)
        return self._escaped_char().__eq__

    def _escaped_char(self) -> str:
        char = self._next()
        if char in string.ascii_letters + string.digits and char not in _CONTROL:
            raise PatternError(f"\\{char} is not accepted")
        return _CONTROL.get(char, char)

    def _class(self) -> Callable[[str], bool]:
        """A test whose time does not depend on how many members there are."""
        negated, first = self._take("^"), True
        singles: set[str] = set()
        ranges: list[tuple[str, str]] = []
        kinds: dict[str, Callable[[str], bool]] = {}
        while first or self._peek() != "]":
            first = False
            self._member(singles, ranges, kinds)
        self.place += 1
        ranges = _merged(ranges)
        starts = [low for low, _ in ranges]

        def is_member(one: str) -> bool:
            place = bisect_right(starts, one) - 1
            return (one in singles or (place >= 0 and one <= ranges[place][1])
                    or any(test(one) for test in kinds.values()))

        return (lambda one: not is_member(one)) if negated else is_member

    def _member(self, singles: set[str], ranges: list[tuple[str, str]],
                kinds: dict[str, Callable[[str], bool]]) -> None:
        low = self._next()
        if low == "\\":
            if self._peek().lower() in _CLASSES:
                kinds[self._peek()] = self._escaped()
            else:
                singles.add(self._escaped_char())
        elif self._peek() == "-" and self.text[self.place + 1:self.place + 2] not in ("]", ""):
            self.place += 1
            high = self._next()
            if high == "\\" or high < low:
                raise PatternError("a range in [ ] that is none")
            ranges.append((low, high))
        else:
            singles.add(low)


def _merged(ranges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same without those that overlap, in order."""
    merged: list[tuple[str, str]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged
