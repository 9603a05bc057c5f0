"""`python -m benchmarks.gpu`: what it needs, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from pretended_gpu.marks import needs_pretended_gpu

from benchmarks import gpu, record

TORCH_ALONE = '''
"""Hides what is neither in the standard library, nor needed by torch, nor the project's own."""
import re
import sys
from importlib import metadata
from importlib.machinery import PathFinder

def needed(name, found):
    for told in metadata.requires(name) or ():
        other = re.sub("[-_.]+", "-", re.match(r"[\\w.-]+", told)[0]).lower()
        if "extra ==" not in told and other not in found and other in installed:
            found.add(other)
            needed(other, found)
    return found

packages = metadata.packages_distributions()
installed = {re.sub("[-_.]+", "-", name).lower() for names in packages.values() for name in names}
torchs = needed("torch", {"torch"})
allowed = {top for top, names in packages.items() if {re.sub("[-_.]+", "-", one).lower() for one in names} & torchs}
allowed |= {"sciart_ext", "benchmarks", "tests"} | set(sys.stdlib_module_names)

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = name.partition(".")[0] in allowed or name.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if known else None

sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
'''
PRETENDED = {
    "pretended", "quick", "checks", "merge_same", "merge_change", "branch_same", "branch_change", "auto_same",
    "auto_change", "rows_differ", "first_call", "fp32_files", "sets_of_a_step", "guided_step", "masked_step",
    "combine_per_layer", "kind_per_layer", "python_ms", "memory"}


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu", *arguments], cwd=record.ROOT, capture_output=True,
                          text=True, env={**os.environ, **environment})


@needs_pretended_gpu
def test_the_pretended_program_needs_torch_alone_and_its_last_line_has_every_figure(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(TORCH_ALONE)
    done = run("--pretend", "--quick", PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == PRETENDED
    for name in ("merge_change", "branch_change", "branch_same", "auto_change"):
        assert found[name].keys() == {"kernels", "launches", "waits", "gb"}
    assert found["python_ms"].keys() == {"constant", "changing", "branch", "plain"}
    assert found["combine_per_layer"].keys() == {"ties", "dare-linear", "dare-ties", "magnitude-prune", "orthogonal"}
    assert found["kind_per_layer"].keys() == {"LoHa", "LoKr", "DoRA", "OFT", "GLoRA", "full"}
    assert found["checks"]["passed"] > 40 and not found["checks"]["failed"]
    assert set(found["checks"]["not_run"].values()) <= {"needs numpy"}
    for model in ("sd15", "sdxl"):
        assert {"plain", "merge_change", "branch_change", "auto_change", "rows_differ", "guided_2",
                "guided_2_offload", "masked_2"} < found["memory"][model].keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick"])
    assert gpu.main() == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "--pretend" in err


def test_a_part_that_is_not_known_is_refused_by_name(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--pretend", "--parts", "time,speed"])
    with pytest.raises(SystemExit) as refused:
        gpu.main()
    err = capsys.readouterr().err
    assert refused.value.code == 2 and "speed" in err and "accepted: checks" in err
