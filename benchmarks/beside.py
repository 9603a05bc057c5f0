"""What the check of other extensions costs where LoRAs have rows of their own.

    SCIART_WEBUI=FOLDER python -m benchmarks.beside [--quick]

Pictures of the tiny model in a real WebUI with the check and without, in turn: beside a hook of another extension that
treats all rows alike, and with no such thing on the model's way. Without a WebUI the last kept result stands.

Keys of the last line, one JSON object: ms: what the check adds to a picture beside the hook, by way to compose, the
median of the pairs; part: the same as a part of a picture of 10 steps; calls, rows: of the UNet that it adds;
rows_of_a_step: of the way; quiet_ms, quiet_part: what it adds where nobody takes part in the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from .hosted import HostServer, result_of, tiny_host

NAMES = ("sciart-tiny-child", "sciart-tiny-watercolor")
HALVES = ([0, 0, 0.5, 1], [0.5, 0, 1, 1])
RECIPES = {
    "composite": {"compose": "composite", "loras": [{"name": name, "weight": 0.8} for name in NAMES]},
    "spatial": {"compose": "spatial", "loras": [{"name": name, "weight": 0.8} for name in NAMES]},
    "regions": {"compose": "regions", "loras": [
        {"name": name, "weight": 0.8, "region": region} for name, region in zip(NAMES, HALVES)]},
    "contrastive": {"compose": "contrastive", "guidance": {"strength": 0}, "loras": [
        {"name": name, "weight": 0.8, "subject": subject} for name, subject in zip(NAMES, ("rocket", "robot"))]},
}
STEPS = 10


def measured(pairs: int) -> dict:
    """By way to compose."""
    found = {}
    with tiny_host() as host:
        for way, recipe in RECIPES.items():
            found[way] = of_way(host, recipe, pairs)
            print(way, found[way], flush=True)
    return found


def of_way(host: HostServer, recipe: dict, pairs: int) -> dict:
    def picture(is_checked: bool, stranger: str | None) -> tuple[float, dict]:
        scripts = {"SciArt": {"args": [recipe]}, **({"Stranger": {"args": [stranger]}} if stranger else {})}
        host.post("/probe/evaluations")
        began = time.perf_counter()
        answer = host.txt2img(prompt="a rocket and a robot", steps=STEPS, width=128, height=128, seed=1,
                              override_settings={"sciart_check_others": is_checked}, alwayson_scripts=scripts)
        seconds = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {answer.text[:500]}")
        return seconds, host.post("/probe/evaluations").json

    def compared(stranger: str | None) -> tuple[float, float, dict, dict]:
        picture(True, stranger)
        times = [(picture(True, stranger), picture(False, stranger)) for _ in range(pairs)]
        (_, checked), (_, unchecked) = times[-1]
        return (1000 * statistics.median(a - b for (a, _), (b, _) in times),
                statistics.median(a / b - 1 for (a, _), (b, _) in times), checked, unchecked)

    ms, part, checked, unchecked = compared("fair")
    quiet_ms, quiet_part, *_ = compared(None)
    return {"ms": round(ms, 1), "part": round(part, 4), "calls": checked["calls"] - unchecked["calls"],
            "rows": checked["rows"] - unchecked["rows"], "rows_of_a_step": unchecked["rows"] // STEPS,
            "quiet_ms": round(quiet_ms, 1), "quiet_part": round(quiet_part, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few pairs; keeps no result")
    options = parser.parse_args()
    ways = result_of("beside", lambda: {"ways": measured(1 if options.quick else 6)}, options.quick)["ways"]
    print(json.dumps({key: {way: of_way[key] for way, of_way in ways.items()} for key in next(iter(ways.values()))}))


if __name__ == "__main__":
    main()
