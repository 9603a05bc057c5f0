"""What SciArt says when it refuses: one exception, always with the name of the field at fault."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_QUOTED = 200


class SciArtError(ValueError):
    """A request that cannot be carried out. `field` is the path of what is wrong, e.g. `loras[1].weight`."""

    def __init__(self, field: str, message: str):
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def quoted(text: str) -> str:
    """What others have written, short enough for an error message."""
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED - 1]}…"


class UnknownRowsError(RuntimeError):
    """Something else calls the model, or a part of it, with rows of which nothing tells whose prompts they are."""


def did_you_mean(word: str, known: Iterable[str], limit: int = 12) -> str:
    """The tail of an error message about an unknown word: the nearest known one, then what is accepted."""
    known = sorted(set(known))
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if not known:
        return f"{hint}accepted: (nothing is available)"
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return f"{hint}accepted: {', '.join(known[:limit])}{more}"
