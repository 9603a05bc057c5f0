"""The command `completion`: what a shell needs to complete commands, options, LoRA names, presets and samplers."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

from .command import SHELL, Command
from .values import OneOf

VARIABLE = "_SCIART_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command, panel=SHELL, examples=("bash > ~/.sciart-completion.sh",))
@click.argument("shell", type=OneOf("SHELL", lambda: SHELLS, listed=True), help="bash, zsh or fish.")
def completion(shell: str) -> None:
    """Print a script that completes `sciart` in your shell, to be sourced at its start."""
    from .program import program

    click.echo(get_completion_class(shell)(program, {}, "sciart", VARIABLE).source())
