"""Whether what SciArt tells of LoRAs' influence and geometry is right, and what it costs.

    python -m benchmarks.explain [--quick] [--parts heat,sampled,rows,geometry] [--device cuda]

heat: Shapley shares' residual, and where heatmaps of subjects and styles lie, on the tiny model, judged by its oracle.
sampled: how often sampled shares' intervals hold the exact ones, of six LoRAs on the tiny model.
rows: counterfactual runs in one batch beside runs one by one, on a UNet of SD 1.5's size. geometry: three LoRAs of rank
32 of SD 1.5's and SDXL's size, beside dense SVDs in float64. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from . import record
from .explaining import geometry, heat, rows, sampled
from .mixing.allocator import KEEPING, restart_with

PARTS = ("heat", "sampled", "rows", "geometry")


def main() -> None:
    options = arguments()
    if options.device == "cpu":
        restart_with(KEEPING)
    began, commit = time.monotonic(), record.commit()
    threads = torch.get_num_threads()
    measured: dict = {}
    if "rows" in options.parts:
        model, size = ("reduced", 64) if options.quick else ("sd15", 512 if options.device == "cuda" else 256)
        steps, rounds = (4, 1) if options.quick else (10, 2)
        measured["rows"] = rows.measure(model, size, steps, rounds, options.device)
    if "geometry" in options.parts:
        chosen = [("sd15", 2)] if options.quick else [("sd15", 100), ("sdxl", 2)]
        measured["geometry"] = {model: geometry.measure(model, 3, dense) for model, dense in chosen}
    if "heat" in options.parts:
        measured["heat"] = heat.measure(*((2, 4) if options.quick else (20, 40)), batch=8)
        torch.set_num_threads(threads)
    if "sampled" in options.parts:
        measured["sampled"] = sampled.measure(*((1, 50, 16, 4) if options.quick else (5, 200, 16)))
        torch.set_num_threads(threads)
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    measured.update(machine=record.machine(options.device), torch=torch.__version__, commit=commit)
    if not options.quick:
        every = set(options.parts) == set(PARTS)
        record.write("explain" if every else f"explain-{'-'.join(options.parts)}", measured)
    print(json.dumps(summary(measured)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, a small UNet, the smallest layers")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, of %(default)s")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of the rows")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    return options


def summary(measured: dict) -> dict:
    """Residual in ΔE; how often sampled shares hold the exact ones, of which 0.95 is stated; time of a batch over that
    of single runs; the geometry's largest error and speed beside dense SVDs for SD 1.5, its seconds for SDXL; the
    median share of subjects' heatmaps within their boxes, beside another thing."""
    result: dict = {}
    if "heat" in measured:
        result["shapley_residual"] = measured["heat"]["residual"]
    if "sampled" in measured:
        result["sampled_shares_held"] = measured["sampled"]["parts_held"]
    if "rows" in measured:
        result["rows_over_separate"] = measured["rows"]["over_separate"]["8_at_once"]
    if "geometry" in measured:
        found = measured["geometry"]
        result.update(geometry_error=max(one["error"] for one in found.values()),
                      geometry_speedup=found["sd15"]["speedup"],
                      geometry_seconds=(found.get("sdxl") or found["sd15"])["seconds"])
    if "heat" in measured:
        result["mass_on_subject"] = measured["heat"]["subjects"]["beside"]["mass"][1]
    return result


if __name__ == "__main__":
    main()
