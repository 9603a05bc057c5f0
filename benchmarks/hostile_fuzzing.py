"""Strategies of hypothesis, driven for a time with seeds that are new each time; what fails is kept, as small as it can
be made."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

BATCH = 200
QUIETLY = settings(max_examples=BATCH, deadline=None, database=None, print_blob=False,
                   phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))


def drive(strategy: st.SearchStrategy, attempt: Callable[[object], None], seconds: float,
          failed: Callable[[object, BaseException], None]) -> tuple[int, int]:
    """How many values were attempted, and how many different failures there were; `failed` gets the smallest of each.

    A batch with a failure ends with it, and is a longer one: hypothesis then looks for smaller values.
    """
    tried, wrong, end = 0, 0, time.monotonic() + seconds
    first, last = random.SystemRandom().randrange(2**60), []

    def one(value: object) -> None:
        nonlocal tried
        tried += 1
        last[:] = [value]
        attempt(value)

    while time.monotonic() < end:
        last.clear()
        first += 1
        try:
            seed(first)(QUIETLY(given(strategy)(one)))()
        except Exception as error:  # whatever an attempt ends with is what is looked for
            if not last:
                raise
            wrong += 1
            failed(last[0], error)
    return tried, wrong


def keep(folder: Path, data: bytes, suffix: str) -> Path:
    """Writes what failed under a name of its own."""
    path = folder / f"{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
    path.write_bytes(data)
    return path
