"""Ctrl+C at whatever moment of whatever command: one line, nothing half-written, nothing left over."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sciart_ext.world import MODEL

ROOT = Path(__file__).parents[2]
CHILD, WATERCOLOR = (str(MODEL / "loras" / f"{name}.safetensors") for name in ("child", "watercolor"))
PICTURE = ["--prompt", "a rocket", "--lora", "child=0.6", "--lora", "watercolor=0.5", "--steps", "8", "--quiet"]
COMMANDS = {
    "generate": ["generate", *PICTURE, "--out", "out/picture.png"],
    "influence": ["influence", *PICTURE, "--subsets", "solo", "--at-once", "1", "--out", "out/influence"],
    "plan": ["plan", "--lora", "child=0.2@0, 0.6@1", "--steps", "200", "--png", "out/plan.png"],
    "loras": ["loras", CHILD, WATERCOLOR, "--json"],
    "geometry": ["geometry", CHILD, WATERCOLOR, "--out", "out/geometry.html", "--quiet"],
    "combine": ["combine", "child=0.6", "watercolor=0.5", "--method", "ties", "--out", "out/both.safetensors",
                "--quiet"],
    "presets": ["presets", "show", "science-imagination"],
    "export-webui": ["export-webui", "out/models"],
}
LONG = ("generate", "influence", "combine", "export-webui")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_interrupted_says_so_in_one_line(tmp_path, name):
    rng = random.Random(name)
    for moment in (0.0, rng.uniform(0.1, 3), *((rng.uniform(3, 12),) if name in LONG else ())):
        started = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", "import signal, sys\n"
             "from sciart_ext.cli import main\nprint('begun', file=sys.stderr, flush=True)\n"
             "sys.exit(main(sys.argv[1:]))", *COMMANDS[name]], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        assert started.stderr.readline() == "begun\n"
        time.sleep(moment)
        started.send_signal(signal.SIGINT)
        _, told = started.communicate(timeout=300)
        assert started.returncode in (130, 0, -signal.SIGINT), told  # the last: when it had ended
        assert "Traceback" not in told
        if started.returncode == 130:
            assert [line for line in told.splitlines() if line.startswith("sciart: interrupted")], told
        assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".lock")]
