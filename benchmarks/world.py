"""What the tiny world's oracle and model can do, and how often linear mixtures lose a subject.

    python -m benchmarks.world [--quick] [--seeds 200]

The oracle is tried on freshly drawn scenes, plain ones and disturbed ones; then it judges pictures of the tiny model:
one and two objects, each individual's and style's LoRA alone, the preset's mixture, and two or three individuals
mixed by merge, switch and composite. Shares come with 95 % intervals (Wilson). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np

from sciart_ext.world.oracle import Oracle

from . import record
from .tinyworld import judging


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 seeds, 200 scenes")
    parser.add_argument("--seeds", type=int, help="pictures per share (default 200, quick 20)")
    parser.add_argument("--parts", default="oracle,model", help="what to measure, of oracle,model")
    parser.add_argument("--again", nargs="+", default=[], metavar="MEASURE",
                        help="only these, such as style_alone/science, into the latest result with its other figures")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of one thread each, on a CPU")
    options = parser.parse_args()
    seeds = range(options.seeds or (20 if options.quick else 200))
    began = time.monotonic()
    before = record.latest("world") if options.again else {}
    measured: dict = {**before, "mb": judging.megabytes()}
    if "oracle" in options.parts and not options.again:
        measured["oracle"] = judging.oracle_shares(Oracle.load(), 200 if options.quick else 2000)
        for disturbance, found in measured["oracle"].items():
            print("oracle", disturbance, json.dumps(found), flush=True)
    if "model" in options.parts:
        jobs = 1 if options.device == "cuda" else options.jobs
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, spawn) as pool:
            waiting = {pool.submit(_measure, path, np.array(seeds), options.device): path for path in judging.MEASURES
                       if not options.again or "/".join(path) in options.again}
            for done in as_completed(waiting):
                *folders, name = waiting[done]
                found = measured
                for folder in folders:
                    found = found.setdefault(folder, {})
                found[name] = done.result()
                print(*folders, name, json.dumps(found[name]), flush=True)
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    measured.update(machine=record.machine(options.device), commit=record.commit())
    if before:
        measured["again"] = {"measures": options.again, "others": {key: before[key] for key in ("commit", "minutes")}}
    if not options.quick:
        record.write("world", measured)
    print(json.dumps(summary(measured)))


def _measure(path: tuple[str, ...], seeds: np.ndarray, device: str) -> dict:
    function, of = judging.MEASURES[path]
    return function(*judging.loaded(device), seeds, *of)


def summary(measured: dict) -> dict:
    """The shares alone, without intervals; of the LoRAs alone, the worst."""
    result: dict = {"mb": measured["mb"]}
    if "oracle" in measured:
        plain = measured["oracle"]["none"]
        result["oracle"] = {name: plain[name]["share"] for name in ("objects", "individuals", "styles")}
    if "both_present" in measured:
        result.update(
            one_object=measured["one_object"]["share"], two_objects=measured["two_objects"]["share"],
            subject_alone=min(share["share"] for share in measured["subject_alone"].values()),
            style_alone=min(share["style"]["share"] for share in measured["style_alone"].values()),
            both_present={name: share["share"] for name, share in measured["both_present"]["two"].items()})
    return result


if __name__ == "__main__":
    main()
