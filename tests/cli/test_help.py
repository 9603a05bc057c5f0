"""The help: groups, choices, examples that run; what it costs to ask for it; completion."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import rich_click as click
import torch

from sciart_ext import __version__
from sciart_ext.cli import main
from sciart_ext.cli.command import Command
from sciart_ext.cli.program import program
from sciart_ext.presets import store

ROOT = Path(__file__).parents[2]
SMALL = ("--width", "64", "--height", "64")
HEAVY = ("torch", "numpy", "scipy", "PIL", "diffusers", "transformers", "matplotlib")


def all_commands() -> dict[str, Command]:
    """Every command by its words."""
    found = {}
    for name, command in program.commands.items():
        inside = getattr(command, "commands", None)
        found |= {f"{name} {one}": each for one, each in inside.items()} if inside else {name: command}
    return found


def told(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", all_commands())
def test_the_help_of_a_command_tells_of_every_option_and_gives_examples(capsys, name):
    command, shown = all_commands()[name], told(capsys, *name.split(), "--help")
    assert command.help.split("\n")[0].strip() in " ".join(shown.split()).replace("│ ", "")
    for parameter in command.params:
        assert parameter.help and parameter.help.endswith("."), parameter.name
        assert parameter.panel or isinstance(parameter, click.Argument) or len(command.params) < 8, parameter.name
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in shown
    assert command.examples and "Example" in shown


def test_the_help_of_the_program_lists_every_command_in_its_group(capsys):
    shown = told(capsys, "--help")
    assert [shown.index(f"─ {group} ─") for group in ("Pictures", "Files", "Your shell")] == sorted(
        shown.index(f"─ {group} ─") for group in ("Pictures", "Files", "Your shell"))
    assert all(re.search(rf"│ {name} ", shown) for name in program.commands)


@pytest.mark.parametrize("name", all_commands())
def test_the_examples_run_as_they_stand(tmp_path, monkeypatch, capsys, one_thread, name):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(store, "USER_DIR", tmp_path / "user")
    monkeypatch.chdir(tmp_path)
    if name == "presets delete":
        assert main(["presets", "save", *shlex.split(all_commands()["presets save"].examples[0])]) == 0
    for example in all_commands()[name].examples:
        words = shlex.split(example.partition(">")[0])
        if "--lora-dir" in words:  # the reader's own
            assert main([*name.split(), *words]) == 2 and "lora-dir: models" in capsys.readouterr().err
            continue
        extra = {"generate": ["--steps", "2", "--width", "64", "--height", "64"],
                 "influence": ["--steps", "2", "--width", "64", "--height", "64"]}.get(name, [])
        assert main([*name.split(), *words, *extra]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["generate", "--help"], ["plan", "--lora", "child=0.5"],
                                   ["plan", "--preset", "science-imagination"], ["presets", "list"],
                                   ["generate", "--prompt", "x", "--lora", "chld=1"], ["loras", "chld"],
                                   ["combine", "chld=1"]], ids=" ".join)
def test_what_is_told_at_once_imports_nothing_heavy(tmp_path, words):
    code = ("import sys\nfrom sciart_ext.cli import main\nstatus = main(sys.argv[1:])\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "SCIART_USER_DIR": str(tmp_path / "user")})
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_the_version_is_told(capsys):
    assert told(capsys, "--version") == f"sciart {__version__}\n"


def test_the_program_is_called_what_it_was_called_by(tmp_path):
    for command, name in ((["-m", "sciart_ext"], "python -m sciart_ext"),
                          (["-c", "from sciart_ext.cli import main; main()"], "sciart")):
        done = subprocess.run([sys.executable, *command, "plan", "--help"], capture_output=True, text=True,
                              cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert f"Usage: {name} plan" in done.stdout and f"{name} plan --lora child=" in done.stdout


def test_there_is_no_colour_where_there_is_no_terminal(capsys):
    assert "\x1b[" not in told(capsys, "plan", "--help")
    assert main(["plan"]) == 2 and "\x1b[" not in capsys.readouterr().err


def on_a_terminal(folder: Path, *words: str) -> str:
    """What a command shows on a terminal, run in a process that is forked: what it imports is there already."""
    import pty

    own, terminal = pty.openpty()
    process = multiprocessing.get_context("fork").Process(target=_run_there, args=(folder, words, terminal))
    process.start()
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # so Linux tells that the other end is closed
        while more := os.read(own, 65536):
            shown += more
    os.close(own)
    process.join()
    return shown.decode("utf-8", "replace")


def _run_there(folder: Path, words: tuple[str, ...], terminal: int) -> None:
    os.chdir(folder)
    os.environ.update(TERM="xterm-256color", COLUMNS="100")
    for own in (0, 1, 2):
        os.dup2(terminal, own)
    sys.stdout, sys.stderr = (open(own, "w", encoding="utf-8", closefd=False) for own in (1, 2))
    status = 1
    try:
        torch.set_num_threads(1)
        status = main(list(words))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_on_a_terminal_there_are_colour_a_word_while_it_loads_and_a_bar_with_the_time_left(tmp_path):
    pytest.importorskip("diffusers")
    import sciart_ext.standalone.models  # noqa: F401  before what needs it is forked

    assert "\x1b[31m" in on_a_terminal(tmp_path, "plan") and "\x1b[" in on_a_terminal(tmp_path, "plan", "--help")
    shown = on_a_terminal(tmp_path, "generate", "--prompt", "a rocket", "--lora", "child=0.5", "--steps", "4", *SMALL)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "Loading sciart-tiny" in plain and "Seed 777" in plain and "4/4" in plain and " left" in plain
    quiet = on_a_terminal(tmp_path, "generate", "--prompt", "a rocket", "--steps", "2", "--quiet", *SMALL)
    assert "Loading" not in quiet and "Seed" not in quiet and "sciart-2.png" in quiet


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(capsys, shell):
    script = told(capsys, "completion", shell)
    assert "_SCIART_COMPLETE" in script and "sciart" in script


@pytest.mark.parametrize(("typed", "found"), [
    ("gen", "generate"), ("generate --sam", "--sampler"), ("generate --preset two", "two-subjects"),
    ("generate --sampler Heu", "Heun"), ("generate --scheduler Kar", "Karras"), ("generate --lora chi", "child="),
    ("loras wat", "watercolor"), ("combine --method dare-t", "dare-ties"),
    ("presets show two-subjects-", "two-subjects-"), ("completion z", "zsh"),
])
def test_a_shell_completes_commands_options_and_names(tmp_path, typed, found):
    words = ["sciart", *typed.split(" ")]
    done = subprocess.run([sys.executable, "-c", "import sys\nfrom sciart_ext.cli import main\nsys.exit(main())"],
                          capture_output=True, text=True, cwd=tmp_path, check=False, env={
                              **os.environ, "PYTHONPATH": str(ROOT), "_SCIART_COMPLETE": "bash_complete",
                              "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)})
    assert any(line.partition(",")[2].startswith(found) for line in done.stdout.splitlines()), done.stdout + done.stderr
