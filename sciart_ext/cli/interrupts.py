"""Ctrl+C, also where compiled code makes another error of it, as safetensors does, or none, as torch does where it is
imported: it imports numpy, and goes on without whatever comes of that."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec


@contextmanager
def known_interrupts() -> Iterator[None]:
    """While it lasts an error that comes after an interrupt is a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread() or (
            signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
        yield
        return
    seen = []

    def note(number: int, frame) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    first = NumpyFirst()
    sys.meta_path.insert(0, first)
    try:
        yield
    except Exception as error:
        if seen:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.meta_path.remove(first)
        signal.signal(signal.SIGINT, signal.default_int_handler)


class NumpyFirst:
    """Imports numpy before torch does, where an interrupt is not lost. It finds no module itself."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "torch":
            import numpy  # noqa: F401
        return None
