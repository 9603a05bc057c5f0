"""Long work behind a button: what is shown while it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LOOKS = 0.3
"""seconds between two looks at the progress"""

Result = TypeVar("Result")


def shown_while(work: Callable[[], Result], shown: Callable[[], tuple]) -> Generator[tuple, None, Result]:
    """Yields shown() until work() has ended in a thread of its own; returns, or raises, what it does."""
    with ThreadPoolExecutor(1) as worker:
        working = worker.submit(work)
        while not working.done():
            yield shown()
            time.sleep(LOOKS)
        return working.result()


def progress_bar(label: str, share: float) -> str:
    """HTML; share: 0 to 1."""
    return f'<label>{label} <progress max="1" value="{share:.3f}"></progress> {100 * share:.0f} %</label>'
