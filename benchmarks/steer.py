"""How often every subject is in the picture: merge, switch, composite, and contrastive guidance, whole and in parts.

    python -m benchmarks.steer [--quick] [--parts shares,time,memory] [--cases two] [--styles without]

On the tiny world, whose oracle can tell: two individuals of different kinds, two of one kind, three; each without and
with a style's LoRA. The same seeds for all; shares with 95 % intervals (Wilson). And what guidance costs on a UNet of
SD 1.5's size. All of it takes hours on two cores; parts and cases are kept apart. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np
import torch

from . import record
from .mixing.allocator import KEEPING, restart_with
from .steering_cost import measure_memory, measure_time
from .tinyworld.judging import loaded, share
from .tinyworld.steering import CASES, COMPOSED, FIRST_SEED, GUIDED, make, overlap

PARTS = ("shares", "time", "memory")
STYLES = ("without", "with")


def main() -> None:
    options = arguments()
    if "time" in options.parts and options.device == "cpu":
        restart_with(KEEPING)
    began, commit = time.monotonic(), record.commit()
    measured: dict = {}
    if "shares" in options.parts:
        measured["seeds"] = options.seeds
        for (case, variant, styled), found in shares(options):
            measured.setdefault(case + (" with style" if styled else ""), {})[variant] = found
            print(case, "with style" if styled else "", variant, json.dumps(found), flush=True)
    model, size = ("reduced", 64) if options.quick else ("sd15", options.size)
    if "memory" in options.parts:
        measured["peak_mb"] = measure_memory(model, size, options.device)
    if "time" in options.parts:
        measured["time"] = measure_time(model, size, options.steps, options.rounds, options.device)
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    measured.update(machine=record.machine(options.device), torch=torch.__version__, commit=commit)
    if not options.quick:
        record.write(kind_of(options), measured)
    print(json.dumps(summary(measured)))


def kind_of(options: argparse.Namespace) -> str:
    """What the result is of: `steer`, and where that is not everything, which parts, cases and styles."""
    named = []
    for chosen, every in ((options.parts, PARTS), (options.cases, CASES), (options.styles, STYLES)):
        if set(chosen) != set(every) and (chosen is options.parts or "shares" in options.parts):
            named += chosen
    return "-".join(["steer", *named, *(["style"] if named and named[-1] in STYLES else [])])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 seeds, two subjects only; the cost on a small UNet")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, of %(default)s")
    parser.add_argument("--seeds", type=int, help="per case (default 200, quick 20)")
    parser.add_argument("--cases", help=f"of {','.join(CASES)}")
    parser.add_argument("--styles", default=",".join(STYLES), help="of %(default)s a style's LoRA")
    parser.add_argument("--size", type=int, default=256, help="side of the picture whose cost is measured")
    parser.add_argument("--steps", type=int, default=20, help="of that picture")
    parser.add_argument("--rounds", type=int, help="of the cost (default 3, quick 1)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of one thread each, on a CPU")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    options.styles = ["without"] if options.quick else options.styles.split(",")
    options.seeds = options.seeds or (20 if options.quick else 200)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.cases = options.cases.split(",") if options.cases else ["two"] if options.quick else list(CASES)
    return options


def shares(options: argparse.Namespace) -> Iterator[tuple[tuple[str, str, bool], dict]]:
    """((case, variant, with a style), what was found) of every task, as they are done."""
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    styled = [style == "with" for style in options.styles]
    tasks = list(itertools.product(options.cases, (*COMPOSED, *GUIDED), styled))
    with ProcessPoolExecutor(1 if options.device == "cuda" else options.jobs, get_context("spawn")) as pool:
        waiting = {pool.submit(measure, *task, seeds, options.device): task for task in tasks}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def measure(case: str, variant: str, styled: bool, seeds: range, device: str) -> dict:
    """Shares; and of the guided, quartiles over the seeds of the loss and of the overlap of the subjects' attention:
    first in the look ahead, before any subject's LoRA acts, last at the last step."""
    made = make(*loaded(device), seeds, case, variant, styled)
    found = {**share(made.present), "style": round(float(np.mean(made.style)), 4)}
    if len(made.by_prompt) > 1:
        found["by_prompt"] = {prompt: share(outcomes) for prompt, outcomes in made.by_prompt.items()}
    losses = [guided.losses for guided in made.guided if guided.losses]
    if losses:
        found["loss"] = {"first": quartiles([seed[0] for seed in losses]),
                         "last": quartiles([seed[-1] for seed in losses])}
    seen = [guided.seen for guided in made.guided if guided.seen]
    if seen:
        found["overlap"] = {"first": quartiles([overlap(one.first) for one in seen]),
                            "last": quartiles([overlap(one.last) for one in seen])}
    return found


def quartiles(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def summary(measured: dict) -> dict:
    """The shares alone; style_kept: guided over merged style strength for two subjects; the cost for two."""
    result: dict = {}
    for name, case in (("both_present", "two"), ("same_class", "same_class"), ("three_present", "three")):
        if case in measured:
            result[name] = {variant: found["share"] for variant, found in measured[case].items()}
    styled = measured.get("two with style")
    if styled:
        result["style_kept"] = round(styled["contrastive"]["style"] / styled["merge"]["style"], 3)
    if "time" in measured:
        result["guided_over_plain"] = measured["time"]["over_plain"]["guided_2"]
    if "peak_mb" in measured:
        result["peak_mb"] = measured["peak_mb"]
    return result


if __name__ == "__main__":
    main()
