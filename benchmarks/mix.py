"""What mixing LoRAs costs: time beside a picture without LoRAs, and peak memory.

    python -m benchmarks.mix [--quick] [--size 256] [--steps 6] [--rounds 5]

In a WebUI (SCIART_WEBUI, SCIART_WEBUI_PYTHON; SCIART_LORACTL names a checkout of sd-webui-loractl to
compare with), or, where none is installed, with the engine alone on diffusers' UNet. Weights are random:
time and memory do not depend on them. Variants are interleaved in rounds; each figure is the median over
rounds of its sampling time over that without LoRAs in the same round. In the WebUI each picture is made twice
and the second is timed; what the first took is kept beside it. All of a run but a quick one, with its raw timings, is
kept in benchmarks/results.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch

from tests.host.server import is_installed, webui_folder

from . import record
from .mixing.allocator import SETTINGS, restart_with
from .mixing.ratios import fastest, ratios
from .mixing.variants import COUNTS, Variant, counted_variants, timed_variants

WARM_UP_STEPS = 1


def main() -> None:
    options = arguments()
    on_host = options.on == "host" or (
        options.on == "auto" and options.device == "cpu" and is_installed(webui_folder())
    )
    if not on_host:
        restart_with(SETTINGS[options.allocator])
    began, before = time.monotonic(), record.machine(options.device)
    measured = run_host(options) if on_host else run_engine(options)
    measured["machine"] = {**before, "load_after": record.machine()["load"]} if "load" in before else before
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    print_table(measured)
    if not options.quick:
        path = record.write(f"mix-{'host' if on_host else 'engine'}-{options.size}", measured)
        print(f"written to {path.relative_to(record.ROOT)}")
    print(json.dumps(measured["summary"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a small model and picture, two rounds: does it run?"
    )
    parser.add_argument("--size", type=int, help="side of the picture (default 256, quick 64)")
    parser.add_argument("--steps", type=int, help="steps of the picture (default 6, quick 4)")
    parser.add_argument("--rounds", type=int, help="measured rounds (default 5, quick 2)")
    parser.add_argument("--parts", default="time,count,memory", help="what to measure, of time,count,memory")
    parser.add_argument(
        "--count-rounds", type=int, help="rounds with 1 to 16 LoRAs (default: as many, at most 3, quick 1)"
    )
    parser.add_argument("--on", choices=["auto", "host", "engine"], default="auto", help="where")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the engine alone")
    parser.add_argument(
        "--allocator",
        choices=list(SETTINGS),
        default="keeping",
        help="keeping: freed memory stays with the process; system: as it is (see mixing/allocator.py)",
    )
    options = parser.parse_args()
    options.size = options.size or (64 if options.quick else 256)
    options.steps = options.steps or (4 if options.quick else 6)
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.count_rounds = min(options.count_rounds or (1 if options.quick else 3), options.rounds)
    options.parts = options.parts.split(",")
    return options


def run_host(options: argparse.Namespace) -> dict:
    """All measurements in the WebUI."""
    from .mixing.host import HostBench

    bench = HostBench("tiny" if options.quick else "sd15", options.size, options.steps)
    memory = bench.peaks() if "memory" in options.parts and not options.quick else {}
    with ExitStack() as stack:
        server = stack.enter_context(bench.server(SETTINGS[options.allocator]))
        versions = server.get("/sciart-bench/versions").json
        variants = timed_variants(bench.loras, True, bench.loractl is not None)
        rounds = measure(variants, counted_variants(bench.names), partial(bench.timed, server), options)
    return result(options, bench, rounds, memory, f"host v{versions['webui'].lstrip('v')} cpu", versions)


def run_engine(options: argparse.Namespace) -> dict:
    """All measurements with the engine alone."""
    from .mixing.engine import EngineBench, peaks_in_fresh_process

    settings = (
        "reduced" if options.quick else "sd15",
        options.size,
        options.steps,
        torch.device(options.device),
    )
    memory = peaks_in_fresh_process(*settings) if "memory" in options.parts else {}
    bench = EngineBench(*settings)
    variants = timed_variants(bench.loras, False, False)
    rounds = measure(variants, counted_variants(bench.names), bench.timed, options)
    versions = {name: importlib.import_module(name).__version__ for name in ("torch", "diffusers")}
    versions.update(python=platform.python_version(), threads=torch.get_num_threads())
    return result(options, bench, rounds, memory, f"engine {options.device}", versions)


def measure(
    variants: Sequence[Variant],
    counted: Sequence[Variant],
    timed: Callable[..., dict],
    options: argparse.Namespace,
) -> list[dict[str, dict]]:
    """Rounds of variant → its times; before them a short one that warms up."""
    counted = counted if "count" in options.parts else []
    if "time" not in options.parts:
        variants, options.rounds = variants[:1], options.count_rounds if counted else 0
    for variant in variants if options.rounds else []:
        timed(variant, steps=min(WARM_UP_STEPS, options.steps))
    rounds = []
    for number in range(options.rounds):
        chosen = [*variants, *(counted if number < options.count_rounds else [])]
        rounds.append({variant.name: timed(variant) for variant in chosen})
        print(
            f"  round {number + 1}: "
            + ", ".join(f"{name} {taken['sampling']:.2f} s" for name, taken in rounds[-1].items()),
            flush=True,
        )
    return rounds


def result(
    options: argparse.Namespace, bench, rounds: list[dict[str, dict]], memory: dict, on: str, versions: dict
) -> dict:
    """The figures, and all that they were made of."""
    every = {of: ratios(rounds, of) for of in (rounds[0]["none"] if rounds else ())}
    sampling = every.get("sampling", {})
    if rounds:
        every["fastest"] = fastest(rounds, "sampling")
    names = ("host_constant", "ours_constant", "ours_changing", "loractl_changing")
    summary = {
        "size": options.size,
        **{name: sampling.get(name) for name in names},
        "peak_mb": memory.get("variants", {}),
        "by_count": {str(count): sampling[f"ours_{count}"] for count in COUNTS if f"ours_{count}" in sampling},
        "on": on,
        "model": bench.model,
        "steps": options.steps,
        "rounds": options.rounds,
        "allocator": options.allocator,
    }
    return {
        "summary": summary,
        "ratios": every,
        "rounds": rounds,
        "memory": memory,
        "differences_from_none": bench.differences,
        "versions": versions,
        "commit": record.commit(),
    }


def print_table(measured: dict) -> None:
    """The figures for people."""
    print("{on}, {model}, {size}², {steps} steps: time over none".format_map(measured["summary"]))
    for name, ratio in measured["ratios"].get("sampling", {}).items():
        others = ", ".join(
            f"{of} {of_it[name]:.3f}" for of, of_it in measured["ratios"].items() if of != "sampling"
        )
        print(f"  {name:18} {ratio:.3f}   {others}")
    memory = measured["memory"]
    for name, peak in memory.get("variants", {}).items():
        print(f"  memory {name:17} {peak['peak']:.0f} MB, {peak['over_none']:+.0f} over none", end="")
        for place in ("", "_in_sampling"):
            if f"holds{place}" in peak:
                verdict = "holds" if peak[f"holds{place}"] else "DOES NOT HOLD"
                where = f"{peak[f'over_none{place}']:+.0f} in sampling " if place else ""
                print(f"; {where}at most {peak['bound']:.0f}: {verdict}", end="")
        print()
    if memory:
        parts = {
            "files": "LoRA files",
            "touched": "weights touched",
            "activations": "one layer's activations",
        }
        print("  " + ", ".join(f"{text} {memory[name]:.0f} MB" for name, text in parts.items()))


if __name__ == "__main__":
    main()
