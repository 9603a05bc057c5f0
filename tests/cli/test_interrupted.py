"""Ctrl+C at whatever moment of whatever command: one line, nothing half-written, nothing left over."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

import sciart_ext.standalone.models  # noqa: F401  imports what most commands wait for, before they are forked
from sciart_ext.cli import main
from sciart_ext.world import MODEL

if os.name == "nt":
    pytest.skip("signals of POSIX", allow_module_level=True)

ROOT = Path(__file__).parents[2]
CHILD, WATERCOLOR = (str(MODEL / "loras" / f"{name}.safetensors") for name in ("child", "watercolor"))
PICTURE = ["--prompt", "a rocket", "--lora", "child=0.6", "--lora", "watercolor=0.5", "--steps", "5", "--quiet"]
COMMANDS = {
    "generate": ["generate", *PICTURE, "--out", "out/picture.png"],
    "influence": ["influence", *PICTURE, "--subsets", "solo", "--at-once", "1", "--out", "out/influence"],
    "plan": ["plan", "--lora", "child=0.2@0, 0.6@1", "--steps", "200", "--png", "out/plan.png"],
    "loras": ["loras", CHILD, WATERCOLOR, "--json"],
    "geometry": ["geometry", CHILD, WATERCOLOR, "--out", "out/geometry.html", "--quiet"],
    "combine": ["combine", "child=0.6", "watercolor=0.5", "--method", "ties", "--out", "out/both.safetensors",
                "--quiet"],
    "bake": ["bake", "child=0.6", "--out", "out/storybook", "--quiet"],
    "presets": ["presets", "show", "science-imagination"],
    "export-webui": ["export-webui", "out/models"],
}
BEGINNING = """
import signal, sys
from sciart_ext import cli

def begun(name, find_spec=cli.find_spec):  # what main does first
    print("begun", file=sys.stderr, flush=True)
    return find_spec(name)

signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers pass on that it is ignored
cli.find_spec = begun
sys.exit(cli.main(sys.argv[1:]))
"""
AT_NUMPY = """
import os, signal, sys
from sciart_ext.cli import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
sys.exit(main(sys.argv[1:]))
"""
IMPORTING = ("generate", "loras")
"""of those that import torch for seconds, one with diffusers and one without"""


def assert_told(status, told, folder):
    assert status in (130, 0, -signal.SIGINT), told  # the last two: when it had ended
    assert "Traceback" not in told
    if status == 130:
        assert [line for line in told.splitlines() if line.startswith("sciart: interrupted")], told
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".lock")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_interrupted_as_it_begins_says_so_in_one_line(tmp_path, name):
    moments = (0.0, *((random.Random(name).uniform(0.1, 3),) if name in IMPORTING else ()))
    for moment in moments:
        started = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", BEGINNING, *COMMANDS[name]], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        assert started.stderr.readline() == "begun\n"
        time.sleep(moment)
        started.send_signal(signal.SIGINT)
        _, told = started.communicate(timeout=300)
        assert_told(started.returncode, told, tmp_path)


def test_an_interrupt_that_torch_would_swallow_ends_the_command():
    """Where it is imported it imports numpy, and goes on whatever comes of that."""
    done = subprocess.run([sys.executable, "-c", AT_NUMPY, *COMMANDS["loras"]], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "sciart: interrupted\n")


def run_here(arguments, folder, begun):
    """In a process that is forked: what it says goes to the file `told`, and it ends with the command's status."""
    with (folder / "told").open("w", encoding="utf-8") as told:
        sys.stdout = sys.stderr = told
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        torch.set_num_threads(1)
        try:
            begun.send(None)
            status = main(arguments)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:  # before it began, or after its end
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
    os._exit(status)


def interrupted(arguments, folder, moment=None):
    """Its status, what it said, and the seconds it took; moment: seconds after which it is interrupted."""
    folder.mkdir()
    forking = multiprocessing.get_context("fork")
    begun, its_end = forking.Pipe(duplex=False)
    process = forking.Process(target=run_here, args=(arguments, folder, its_end))
    process.start()
    its_end.close()
    assert begun.poll(60) and begun.recv() is None
    began = time.monotonic()
    if moment is not None:
        process.join(moment)
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
    process.join(300)
    return process.exitcode, (folder / "told").read_text(encoding="utf-8"), time.monotonic() - began


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_interrupted_in_its_midst_says_so_in_one_line(tmp_path, name):
    status, told, seconds = interrupted(COMMANDS[name], tmp_path / "whole")
    assert status == 0, told
    for number, share in enumerate((random.Random(name).uniform(0.05, 0.5), random.Random(name).uniform(0.5, 0.9))):
        folder = tmp_path / str(number)
        status, told, _ = interrupted(COMMANDS[name], folder, share * seconds)
        assert_told(status, told, folder)


def test_an_interrupt_that_compiled_code_makes_another_error_of_is_one(tmp_path, monkeypatch, capsys):
    def read(path):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type") from None

    monkeypatch.setattr("sciart_ext.standalone.export.load_file", read)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["export-webui", str(tmp_path / "models")]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "sciart: interrupted\n"
