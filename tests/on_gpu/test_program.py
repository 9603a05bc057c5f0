"""`python -m benchmarks.gpu`: what it needs, what it says, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from benchmarks import record


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu", *arguments], cwd=record.ROOT, capture_output=True,
                          text=True, env={**os.environ, **environment})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so_in_one_line():
    done = run("--quick")
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "--pretend" in done.stderr


def test_a_part_that_is_not_known_is_refused_by_name():
    done = run("--pretend", "--parts", "time,speed")
    assert done.returncode == 2 and "speed" in done.stderr and "accepted: checks" in done.stderr
