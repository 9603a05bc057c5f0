"""How often every subject is in the picture: merge, switch, composite, masked, contrastive guidance, whole and in
parts, and peers: FreeFuse, W-Switch, W-Composite.

    python -m benchmarks.steer [--quick] [--parts shares,time,memory] [--cases two] [--variants masked]
                               [--styles without]

On the tiny world, whose oracle can tell: two individuals of different kinds, two of one kind, three; each without and
with a style's LoRA. The same seeds for all; shares with 95 % intervals (Wilson), and what is missing where one fails
(`missing`). And what steering costs on a UNet of SD 1.5's size. All of it takes hours on two cores; parts and cases are
kept apart. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np
import torch

from sciart_ext.guidance.noises import noise_seed

from . import record
from .mixing.allocator import KEEPING, restart_with
from .peers.ways import PEERS
from .steering_cost import measure_memory, measure_time
from .tinyworld.judging import area, loaded, share
from .tinyworld.steering import CASES, COMPOSED, FIRST_SEED, GUIDED, layouts, make, overlap

PARTS = ("shares", "time", "memory")
STYLES = ("without", "with")
VARIANTS = (*COMPOSED, *GUIDED, *PEERS)


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
    for chosen, every in ((options.parts, PARTS), (options.cases, CASES), (options.variants, VARIANTS),
                          (options.styles, STYLES)):
        if set(chosen) != set(every) and (chosen is options.parts or "shares" in options.parts):
            named += chosen
    return "-".join(["steer", *named, *(["style"] if named and named[-1] in STYLES else [])])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true",
                        help="2 seeds, most variants with two subjects only; the cost on a small UNet")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, of %(default)s")
    parser.add_argument("--seeds", type=int, help="per case (default 200, quick 2)")
    parser.add_argument("--cases", help=f"of {','.join(CASES)}")
    parser.add_argument("--variants", help=f"of {','.join(VARIANTS)}")
    parser.add_argument("--styles", default=",".join(STYLES), help="of %(default)s a style's LoRA")
    parser.add_argument("--size", type=int, default=256, help="side of the picture whose cost is measured")
    parser.add_argument("--steps", type=int, default=20, help="of that picture")
    parser.add_argument("--rounds", type=int, help="of the cost (default 3, quick 1)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of one thread each, on a CPU")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    options.styles = options.styles.split(",")
    options.seeds = options.seeds or (2 if options.quick else 200)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.cases = options.cases.split(",") if options.cases else list(CASES)
    options.variants = options.variants.split(",") if options.variants else list(VARIANTS)
    return options


def shares(options: argparse.Namespace) -> Iterator[tuple[tuple[str, str, bool], dict]]:
    """((case, variant, with a style), what was found) of every task, as they are done."""
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    styled = [style == "with" for style in options.styles]
    tasks = [task for task in itertools.product(options.cases, options.variants, styled)
             if not options.quick or is_quick(*task)]
    with ProcessPoolExecutor(1 if options.device == "cuda" else options.jobs, get_context("spawn")) as pool:
        bases = {case: pool.submit(lay_out, case, seeds, options.device) for case in options.cases}
        waiting = {pool.submit(measure, *task, seeds, options.device, bases[task[0]].result()): task for task in tasks}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def is_quick(case: str, variant: str, styled: bool) -> bool:
    """Every variant is tried on two subjects; on others, and with a style, those that the last line compares."""
    return (variant in ("merge", "contrastive") if styled and case == "two" else not styled and (
        case == "two" or variant in ("merge", "contrastive", "masked")))


def lay_out(case: str, seeds: range, device: str) -> list[bool]:
    """Whether the base model alone paints all kinds of a case from the noise of each seed."""
    return layouts(*loaded(device), seeds, case)


def measure(case: str, variant: str, styled: bool, seeds: range, device: str, base: list[bool]) -> dict:
    """Shares, and what failures lack; of the guided also quartiles over the seeds of the loss and of the overlap of the
    subjects' attention: first in the look ahead, before any subject's LoRA acts, last at the last step. base:
    `lay_out`'s."""
    made = make(*loaded(device), seeds, case, variant, styled)
    if GUIDED.get(variant, {}).get("noises"):
        begun = [noise_seed(seed, one.noise) for seed, one in zip(seeds, made.guided)]
        base = layouts(*loaded(device), begun, case)
    found = {**share(made.present), "style": round(float(np.mean(made.style)), 4),
             "missing": missing(made.present, made.laid_out, base), "layout": share(base)}
    if len(made.by_prompt) > 1:
        found["by_prompt"] = {prompt: share(outcomes) for prompt, outcomes in made.by_prompt.items()}
    if variant == "masked":
        found["noise_auc"] = noise_auc([one.apart for one in made.guided], base, len(made.by_prompt))
    losses = [guided.losses for guided in made.guided if guided.losses]
    if losses:
        found["loss"] = {"first": quartiles([seed[0] for seed in losses]),
                         "last": quartiles([seed[-1] for seed in losses])}
    seen = [guided.seen for guided in made.guided if guided.seen]
    if seen:
        found["overlap"] = {"first": quartiles([overlap(one.first) for one in seen]),
                            "last": quartiles([overlap(one.last) for one in seen])}
    return found


def missing(present: Sequence[bool], laid_out: Sequence[bool], base: Sequence[bool]) -> dict[str, int]:
    """How many pictures failed for what. base: whether the base model paints all kinds from the same noise; laid_out:
    whether the picture has them. not_laid_out: neither does; lost: the base model alone does; not_its_own: the picture
    has the kinds, but not the individuals; both: the same, from a noise of which the base model does not paint them.
    """
    failed = [(kinds, noise) for there, kinds, noise in zip(present, laid_out, base) if not there]
    return {"not_laid_out": failed.count((False, False)), "lost": failed.count((False, True)),
            "not_its_own": failed.count((True, True)), "both": failed.count((True, False))}


def noise_auc(apart: Sequence[float], base: Sequence[bool], prompts: int) -> float | None:
    """Of how far apart the look ahead saw the subjects, as a sign that the base model paints them all: the chance that
    of two noises of a prompt, one good and one not, they are farther apart in the good one; mean over so many prompts
    that have both kinds, None where none has."""
    parts = zip(np.array_split(np.array(apart), prompts), np.array_split(np.array(base), prompts))
    areas = [area(scores, good) for scores, good in parts if good.any() and not good.all()]
    return round(float(np.mean(areas)), 4) if areas else None


def quartiles(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def summary(measured: dict) -> dict:
    """The shares alone; style_kept: guided over merged style strength for two subjects; the cost for two."""
    result: dict = {}
    for name, case in (("both_present", "two"), ("same_class", "same_class"), ("three_present", "three")):
        if case in measured:
            result[name] = {variant: found["share"] for variant, found in measured[case].items()}
            result.setdefault("layout", {})[case] = next(iter(measured[case].values()))["layout"]["share"]
    styled = measured.get("two with style")
    if styled and {"contrastive", "merge"} <= styled.keys():
        result["style_kept"] = round(styled["contrastive"]["style"] / styled["merge"]["style"], 3)
    if "noise_auc" in measured.get("two", {}).get("masked", {}):
        result["noise_auc"] = measured["two"]["masked"]["noise_auc"]
    if "time" in measured:
        result["guided_over_plain"] = measured["time"]["over_plain"]["guided_2"]
        result["masked_over_plain"] = {count: measured["time"]["over_plain"][f"masked_{count}"] for count in (2, 3)}
    if "peak_mb" in measured:
        result["peak_mb"] = measured["peak_mb"]
    return result


if __name__ == "__main__":
    main()
