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

from .tinyworld import judging, report
from .tinyworld.sampling import Pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 seeds, 200 scenes")
    parser.add_argument("--seeds", type=int, help="pictures per share (default 200, quick 20)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    seeds = range(options.seeds or (20 if options.quick else 200))
    began = time.monotonic()
    oracle = judging.trained_oracle()
    measured = {"oracle": judging.oracle_shares(oracle, 200 if options.quick else 2000)}
    print(json.dumps(measured["oracle"], indent=1), flush=True)
    pictures = Pictures(judging.MODEL, options.device)
    for name, measure in judging.MEASURES.items():
        measured[name] = measure(pictures, oracle, np.array(seeds))
        print(name, json.dumps(measured[name], indent=1), flush=True)
    measured["mb"] = judging.megabytes()
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    report.write("world", measured)
    print(json.dumps(report.summary(measured)))


if __name__ == "__main__":
    main()
