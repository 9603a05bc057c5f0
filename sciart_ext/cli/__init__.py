"""The command line, `sciart` or `python -m sciart_ext`."""

from .commands import main

__all__ = ["main"]
