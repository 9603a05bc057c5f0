"""How a command introduces itself: one line in the list of commands, the same line and an example in its own help."""

from __future__ import annotations

import argparse

from ..recipe.schedule_text import number_in


def add_command(commands, name: str, what: str, example: str) -> argparse.ArgumentParser:
    """Adds a command to the parser's; what: what it does, example: its arguments as they may be typed."""
    return commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=f"example: python -m sciart_ext {name} "
        f"{example}")


def number(text: str) -> float:
    """An option's value, with decimal point or comma."""
    found = None if "%" in text else number_in(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"invalid number: {text!r}; expected one such as 7.5")
    return found
