"""The parts of `benchmarks.gpu --pretend`, each to be run in a process of its own; they say what they find."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from tests.pretended_gpu import PretendedGpu

from . import checks, computed, counted
from .bench import Scene


def check(quick: bool) -> dict:
    """`checks.run` on the pretended GPU."""
    with PretendedGpu() as gpu:
        return checks.run(torch.device("gpu", 0), lambda: gpu.memory.live, quick, _say)


def count_calls(scene: Scene) -> dict:
    """`counted.count_calls`."""
    return _collected(lambda report: counted.count_calls(scene, report))


def count_layers(quick: bool) -> dict:
    """`counted.count_layers`."""
    return _collected(lambda report: counted.count_layers(quick, report))


def compute(name: str, scene: Scene) -> dict:
    """`computed.compute`."""
    return _collected(lambda report: computed.compute(name, scene, report))


def _collected(run: Callable[[Callable[[str, object], None]], None]) -> dict:
    found = {}

    def report(name: str, value: object) -> None:
        found[name] = value
        _say(f"{name}: {json.dumps(value)}")

    run(report)
    return found


def _say(text: str) -> None:
    print(f"  {text}", flush=True)
