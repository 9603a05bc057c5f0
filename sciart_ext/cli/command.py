"""How a command introduces itself: options in groups, and examples that run as they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from ..errors import SciArtError, did_you_mean, shown

# groups of commands and of options, as the help heads them
PICTURES, FILES, SHELL = "Pictures", "Files", "Your shell"
MIXTURE, MODEL, PICTURE, RESULT = "Mixture", "Model", "Picture", "Result"


class Command(click.RichCommand):
    """A command whose help ends with examples: its arguments as they may be typed."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **options: Any):
        super().__init__(*args, **options)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: Any) -> None:
        lines = [f"{ctx.command_path} {example}" for example in self.examples]
        self.epilog = "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *lines]) if lines else None
        super().format_help(ctx, formatter)


class Group(click.RichGroup):
    """Commands; one that is not known is refused with the nearest that is."""

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise SciArtError("command", f"{shown(args[0])} is not known; "
                                         f"{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they are added, not by the alphabet


Decorator = Callable[[Any], Any]


def options(*given: Decorator) -> Decorator:
    """Several options as one decorator, in this order."""
    def add(command: Any) -> Any:
        for option in reversed(given):
            command = option(command)
        return command
    return add
