"""The program: its commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rich_click as click
from click.shell_completion import shell_complete

from .. import __version__
from ..errors import SciArtError, nearest
from ..whole_file import NoRoomError, clear_interrupted, is_full
from .bake import bake
from .combine import combine
from .command import Group
from .completion import VARIABLE, completion
from .export import export_webui
from .generate import generate
from .geometry import geometry
from .influence import influence
from .interrupts import known_interrupts
from .loras import loras
from .plan import plan
from .presets import presets

WRONG, NO_ROOM, INTERRUPTED = 2, 1, 130
COMMANDS = (generate, influence, plan, presets, loras, geometry, combine, bake, export_webui, completion)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sciart", message="%(prog)s %(version)s", help="The version.")
def program() -> None:
    """SciArt without a WebUI: draws with several LoRAs whose weights may change over the steps, tells what each of
    them did, and compares and joins LoRA files. Without --model it draws with the tiny model that comes with it."""


for _command in COMMANDS:
    program.add_command(_command)


def run(arguments: Sequence[str], name: str) -> int:
    """Runs a command. The exit status: 0; 2 where the request cannot be carried out, 1 where there is no room on the
    disk or in memory, 130 where it was interrupted. Whatever goes wrong is told in one line."""
    if instruction := os.environ.get(VARIABLE):
        return shell_complete(program, {}, "sciart", VARIABLE, instruction)
    try:
        with known_interrupts(), program.make_context(name, list(map(str, arguments))) as context:
            program.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message)
        return WRONG
    except click.ClickException as error:
        return _told(_one_line(error), WRONG)
    except NoRoomError as error:
        return _told(str(error), NO_ROOM)
    except SciArtError as error:
        return _told(str(error), WRONG)
    except (KeyboardInterrupt, click.Abort) as error:
        clear_interrupted()
        return _told(f"interrupted: {error}" if str(error) else "interrupted", INTERRUPTED)
    except MemoryError:
        return _told("memory: there is not enough of it", NO_ROOM)
    except BrokenPipeError:  # who read the output has gone, as head does
        sys.stdout = None  # or Python tries once more, and fails, when it ends
        return NO_ROOM
    except OSError as error:
        told = error.strerror or str(error)
        if is_full(error) and error.filename is None:
            sys.stdout = None
            return _told(f"standard output cannot be written: {told}", NO_ROOM)
        return _told(f"{error.filename}: {told}" if error.filename else told, NO_ROOM if is_full(error) else WRONG)
    return 0


def _told(message: str, status: int) -> int:
    click.secho("sciart:", fg="red", bold=True, err=True, nl=False)
    click.echo(f" {' '.join(message.split())}", err=True)
    return status


def _one_line(error: click.ClickException) -> str:
    """What is wrong with the words of a command, told as errors of fields are."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name for one in error.ctx.command.get_params(error.ctx) for name in one.opts if name.startswith("--")]
        near = nearest(error.option_name, known)
        return (f"{error.option_name}: no such option; "
                + (f"did you mean {near}?" if near else f"{error.ctx.command_path} --help lists them"))
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name}: a value is missing" if "requires an argument" in error.message else error.message
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{(error.param.name or '').replace('_', '-')}: missing; {error.ctx.command_path} --help tells more"
    return error.format_message()
