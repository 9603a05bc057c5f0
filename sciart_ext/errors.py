"""What SciArt says when it refuses: one exception, always with the name of the field at fault."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

MOST_QUOTED = 200


class SciArtError(ValueError):
    """A request that cannot be carried out. `field` is the path of what is wrong, e.g. `loras[1].weight`."""

    def __init__(self, field: str, message: str):
        self.field = _writable(quoted(field))
        self.message = _writable(message)
        super().__init__(f"{self.field}: {self.message}" if field else self.message)


def quoted(text: str) -> str:
    """What others have written, short enough for an error message."""
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED - 1]}…"


def shown(value: object) -> str:
    """A value as Python writes it, short enough for an error message."""
    return quoted(_short.repr(value))


def _writable(text: str) -> str:
    """Without halves of characters, which no file and no answer can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MOST_QUOTED

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write numbers of some thousand digits
        return repr(value) if abs(value) < 10**60 else "a number of more than 60 digits"


_short = _Short()


class UnknownRowsError(RuntimeError):
    """Something else calls the model, or a part of it, with rows of which nothing tells whose prompts they are."""


class UnseenAttentionError(RuntimeError):
    """Something else computes the cross-attention that was to be read, and elsewhere."""


class UnplacedError(SciArtError):
    """The places of a picture are elsewhere in the model than where masks have them: something moves or joins them."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, or the shortest that has it in it, whatever the case; None where none
    is."""
    word, by_lower = quoted(word).lower(), {one.lower(): one for one in sorted(known, reverse=True)}
    found = difflib.get_close_matches(word, by_lower, n=1)
    found = found or sorted((one for one in by_lower if word.strip() and word in one), key=len)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], limit: int = 12) -> str:
    """The tail of an error message about an unknown word: the nearest known one, then what is accepted."""
    known = sorted(set(known))
    near = nearest(word, known)
    hint = f"did you mean {near!r}? " if near is not None else ""
    if not known:
        return f"{hint}accepted: (nothing is available)"
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return f"{hint}accepted: {', '.join(known[:limit])}{more}"
