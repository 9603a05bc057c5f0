"""How often every subject is in the picture: merge, switch, composite, and contrastive guidance, whole and in parts.

    python -m benchmarks.steer [--quick] [--seeds 200]

On the tiny world, whose oracle can tell: two individuals of different kinds, two of one kind, three; each without and
with a style's LoRA. The same seeds for all; shares with 95 % intervals (Wilson). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np

from . import record
from .tinyworld.judging import loaded, share
from .tinyworld.steering import CASES, COMPOSED, GUIDED, make, overlap

FIRST_SEED = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 seeds, two subjects of different kinds only")
    parser.add_argument("--seeds", type=int, help="per case (default 200, quick 20)")
    parser.add_argument("--cases", default=None, help=f"of {', '.join(CASES)}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of one thread each, on a CPU")
    options = parser.parse_args()
    count = options.seeds or (20 if options.quick else 200)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    cases = options.cases.split(",") if options.cases else ["two"] if options.quick else list(CASES)
    began = time.monotonic()
    measured: dict = {"seeds": count}
    tasks = [(case, variant, styled) for case in cases for styled in (False, True) for variant in (*COMPOSED, *GUIDED)]
    with ProcessPoolExecutor(1 if options.device == "cuda" else options.jobs, get_context("spawn")) as pool:
        waiting = {pool.submit(measure, *task, seeds, options.device): task for task in tasks}
        for done in as_completed(waiting):
            case, variant, styled = waiting[done]
            case += " with style" if styled else ""
            measured.setdefault(case, {})[variant] = done.result()
            print(case, variant, json.dumps(done.result()), flush=True)
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    measured.update(machine=record.machine(options.device), commit=record.commit())
    if not options.quick:
        record.write("-".join(["steer", *(cases if options.cases else [])]), measured)
    print(json.dumps(summary(measured)))


def measure(case: str, variant: str, styled: bool, seeds: range, device: str) -> dict:
    """Shares; and of the guided, quartiles over the seeds of the loss and of the overlap of the subjects' attention:
    first in the look ahead, before any subject's LoRA acts, last at the last step."""
    made = make(*loaded(device), seeds, case, variant, styled)
    found = {**share(made.present), "style": round(float(np.mean(made.style)), 4)}
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
    """The shares alone; style_kept: guided over merged style strength for two subjects."""
    result: dict = {}
    for name, case in (("both_present", "two"), ("same_class", "same_class"), ("three_present", "three")):
        if case in measured:
            result[name] = {variant: found["share"] for variant, found in measured[case].items()}
    styled = measured.get("two with style")
    if styled:
        result["style_kept"] = round(styled["contrastive"]["style"] / styled["merge"]["style"], 3)
    return result


if __name__ == "__main__":
    main()
