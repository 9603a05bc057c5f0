"""What the tiny world's oracle and model can do, and how often linear mixtures lose a subject.

    python -m benchmarks.world [--quick] [--seeds 200]

The oracle is tried on freshly drawn scenes, plain ones and disturbed ones; then it judges pictures of the tiny model:
one and two objects, each individual's and style's LoRA alone, the preset's mixture, and two or three individuals
mixed by merge, switch and composite. Shares come with 95 % intervals (Wilson). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from sciart_ext.world import MODEL

from . import record
from .tinyworld import judging


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 seeds, 200 scenes")
    parser.add_argument("--seeds", type=int, help="pictures per share (default 200, quick 20)")
    parser.add_argument("--parts", default="oracle,model", help="what to measure, of oracle,model")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    seeds = range(options.seeds or (20 if options.quick else 200))
    began = time.monotonic()
    oracle = judging.trained_oracle()
    measured: dict = {"mb": judging.megabytes()}
    if "oracle" in options.parts:
        measured["oracle"] = judging.oracle_shares(oracle, 200 if options.quick else 2000)
        print("oracle", json.dumps(measured["oracle"], indent=1), flush=True)
    if "model" in options.parts:
        from .tinyworld.sampling import Pictures

        pictures = Pictures(MODEL, options.device)
        for name, measure in judging.MEASURES.items():
            measured[name] = measure(pictures, oracle, np.array(seeds))
            print(name, json.dumps(measured[name], indent=1), flush=True)
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    measured.update(machine=record.machine(options.device), commit=record.commit())
    if not options.quick:
        record.write("world", measured)
    print(json.dumps(summary(measured)))


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
