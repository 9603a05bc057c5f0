"""SciArt on a GPU: whether it is right there, how quick, and how much memory it takes.

    python -m benchmarks.gpu [--quick] [--minutes 8.5] [--parts checks,tests,time,memory,python]
    python -m benchmarks.gpu --pretend [--quick] [--parts checks,time,memory,python]

On a machine with CUDA it needs torch and this folder, nothing else: SD 1.5's and SDXL's UNets at full size are there in
plain torch, with random weights in half precision, on which neither time nor memory depends. Its parts:

    checks  merged, branched and dense weights agree for every kind of layer, of LoRA and of precision; all is restored
    tests   those of `tests/` that need CUDA, where pytest and what they use are installed
    time    each way to have three LoRAs of rank 32 and 128, in rounds, beside the plain call of its round; steering
            to two and three subjects; all sets of the LoRAs at once beside one by one
    memory  what each adds to the most that is on the card
    python  milliseconds that Python adds to a call, on one CPU thread

With --pretend no GPU is needed, but torch 2.13: `time` then counts kernels, launches, waits and bytes
(`cuda/counted.py`), and `memory` computes (`cuda/computed.py`). Results are printed as they come; the last line is one
JSON object. All of a run but a quick one is kept in benchmarks/results.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time

import torch

from . import record
from .cuda import card as cards
from .cuda import checks, overhead, suite, timed
from .cuda.bench import SCENES, SMALL, Scene
from .mixing.allocator import in_fresh_process

PARTS = ("checks", "tests", "time", "memory", "python")
RANKS = (32, 128)
NO_CUDA = ("benchmarks.gpu: torch finds no CUDA device here; run it where one is, or with --pretend to count without "
           "one")


def main() -> int:
    options = arguments()
    if not options.pretend and not torch.cuda.is_available():
        print(NO_CUDA, file=sys.stderr)
        return 2
    began = time.monotonic()
    with torch.no_grad():
        summary, facts = (pretend if options.pretend else measure)(options)
    result = {"summary": summary, "machine": facts, "versions": cards.versions(), "commit": record.commit(),
              "minutes": round((time.monotonic() - began) / 60, 1)}
    if not options.quick:
        path = record.write("gpu-pretended" if options.pretend else "gpu", result)
        say(f"written to {path.relative_to(record.ROOT)}")
    print(json.dumps(_short(summary)), flush=True)
    return 1 if _failed(summary) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretend", action="store_true", help="count on a pretended GPU; needs torch 2.13")
    parser.add_argument("--quick", action="store_true", help="small models, few rounds: does it run?")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to do, of " + ",".join(PARTS))
    parser.add_argument("--scenes", default=",".join(SCENES), help="models, of " + ",".join(SCENES))
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)), help="of the LoRAs")
    parser.add_argument("--minutes", type=float, default=8.5, help="after which no round of timings is begun")
    options = parser.parse_args()
    for name, known in (("parts", PARTS), ("scenes", tuple(SCENES))):
        chosen = getattr(options, name).split(",")
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown {name}: {', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
        setattr(options, name, chosen)
    options.ranks = [int(rank) for rank in options.ranks.split(",")]
    return options


def say(text: str) -> None:
    print(text, flush=True)


def scene(name: str, quick: bool) -> Scene:
    """A model at its picture's size; of a quick run one with few and narrow layers."""
    return (SMALL if quick else SCENES)[name]


def measure(options: argparse.Namespace) -> tuple[dict, dict]:
    """What is found on the CUDA device, and what it is."""
    began, card, found = time.monotonic(), cards.Card(), {}
    facts = card.facts()
    say(f"{facts['gpu']}, {facts['gpu_memory_gib']} GiB, torch {torch.__version__}, CUDA {facts['cuda']}")
    if "checks" in options.parts:
        say("checks")
        found["checks"] = checks.run(card.device, card.held, options.quick, lambda text: say(f"  {text}"))
    if "tests" in options.parts:
        found["tests"] = suite.run(60 * options.minutes / 4)
        say(f"tests: {found['tests']['told']}")
    if "python" in options.parts:
        found["python_ms"] = overhead.measure(options.quick)
        say(f"python: {found['python_ms']} ms")
    if {"time", "memory"} & set(options.parts):
        measuring = timed.Measuring(card, timed.QUICK if options.quick else timed.FULL, say)
        ends = began + 60 * options.minutes
        pairs = [(name, rank) for name in options.scenes for rank in options.ranks]
        for number, (name, rank) in enumerate(pairs):
            until = time.monotonic() + (ends - time.monotonic()) / (len(pairs) - number)
            one = found.setdefault(name, {}).setdefault(f"rank_{rank}", {})
            say(f"{name}, three LoRAs of rank {rank}")
            bench = timed.card_bench(scene(name, options.quick), rank, card.device)
            if "time" in options.parts:
                _time(measuring, bench, one, until, also=rank == options.ranks[0])
            if "memory" in options.parts:
                say("  peak memory")
                one["peak_mb"] = measuring.peaks(bench)
            del bench
    return found, facts


def _time(measuring: timed.Measuring, bench, one: dict, until: float, also: bool) -> None:
    """also: steered pictures and sets of LoRAs too, in half of the time."""
    now = time.monotonic()
    share = (until - now) / (4 if also else 1)
    say("  steps")
    one["steps"] = measuring.variants(bench, now + share * (2 if also else 1))
    if also:
        say("  steered pictures, by their steps")
        one["pictures"] = measuring.pictures(bench, time.monotonic() + share)
        say("  sets of the LoRAs, a step of all")
        one["sets"] = measuring.sets(bench, until)


def pretend(options: argparse.Namespace) -> tuple[dict, dict]:
    """What is counted and computed without a GPU, and where.

    Each pretended GPU has a process of its own: what the engine has once found out of a device, it keeps.
    """
    from tests import pretended_gpu

    if not pretended_gpu.SUPPORTED:
        raise SystemExit(f"benchmarks.gpu --pretend: torch {torch.__version__} has no device types made in Python; "
                         "accepted: torch 2.13")
    from .cuda import pretended

    found: dict = {"pretended": True, "quick": options.quick}
    apart = functools.partial(in_fresh_process, environment={})
    if "checks" in options.parts:
        say("checks")
        found["checks"] = apart(pretended.check, options.quick)
    if "time" in options.parts:
        say("added to a call, SD 1.5, 512², two rows, three LoRAs of rank 32")
        found.update(apart(pretended.count_calls, scene("sd15", options.quick)))
        say("at a change of gates, per layer, merged")
        found.update(apart(pretended.count_layers, options.quick))
    if "python" in options.parts:
        found["python_ms"] = overhead.measure(options.quick)
        say(f"python: {found['python_ms']} ms")
    if "memory" in options.parts:
        found["memory"] = {}
        for name in options.scenes:
            say(f"memory in GiB, {name}, three LoRAs of rank 128")
            found["memory"][name] = apart(pretended.compute, name, scene(name, options.quick))
    return found, record.machine()


def _short(summary: dict) -> dict:
    """Without every single timing."""
    return {name: _short(value) if isinstance(value, dict) else value for name, value in summary.items()
            if name != "raw"}


def _failed(summary: dict) -> bool:
    return bool(summary.get("checks", {}).get("failed")) or bool(summary.get("tests", {}).get("failed"))


if __name__ == "__main__":
    sys.exit(main())
