"""Progress of long work on a terminal, on standard error: a bar with the time left, a word while something loads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnStep = Callable[[int, int], None]
"""(done, of)"""


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[OnStep]:
    """A bar; nothing where standard error is no terminal, or it is to be quiet."""
    if quiet or not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def on_step(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        yield on_step


@contextmanager
def working(what: str, quiet: bool = False) -> Iterator[None]:
    """A word, and something that moves, while work lasts of which nobody knows how much is done."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


def _nothing(done: int, of: int) -> None:
    pass
