"""Progress of long work on a terminal."""

from __future__ import annotations

import sys


def show_progress(done: int, steps: int) -> None:
    """A bar on standard error, where that is a terminal."""
    if sys.stderr.isatty():
        filled = 30 * done // steps
        end = "\n" if done == steps else ""
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{steps}", end=end, file=sys.stderr, flush=True)
