"""The command line, `sciart` or `python -m sciart_ext`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, name: str = "sciart") -> int:
    """Runs a command; returns the exit status. name: what it was called by, as its help repeats it. See `program`."""
    try:
        if find_spec("rich_click") is None:
            print('sciart: the command line needs rich-click; pip install "sciart[standalone]"', file=sys.stderr)
            return 2
        from .program import run

        return run(sys.argv[1:] if arguments is None else arguments, name)
    except KeyboardInterrupt:  # while its modules are imported
        print("sciart: interrupted", file=sys.stderr)
        return 130
