"""What it takes to read an infotext's last line, `Key: value, …`, by the WebUI's regular expression."""

from __future__ import annotations

import re

from ..errors import SciArtError

MOST_CHARACTERS = 1_000_000
MOST_READING = 30_000_000
"""characters that are looked at, some of them many times"""


def check_readable(text: str, field: str) -> None:
    """Raises `SciArtError` for an infotext that would hold up who reads it. The expression tries each character of what
    might be a key as its first, and each quotation mark that begins a value to the end of the text."""
    if len(text) > MOST_CHARACTERS:
        raise SciArtError(field, f"{len(text)} characters; at most {MOST_CHARACTERS} are accepted")
    last = text.strip().rpartition("\n")[2]
    keys = sum(len(run)**2 for run in re.findall(r"[\w\s/-]+", last))
    quotations = len(re.findall(r':\s*"', last)) * len(last)
    if keys + quotations > MOST_READING:
        raise SciArtError(field, "its last line is none that a WebUI writes")
