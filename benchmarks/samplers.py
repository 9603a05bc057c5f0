"""Every sampler and schedule type of the WebUI: is the standalone engine's picture the WebUI's?

    SCIART_WEBUI=FOLDER python -m benchmarks.samplers [--quick]

Pictures of the tiny model in a real WebUI and on the command line's engine: each sampler with its Automatic schedule,
with and without LoRAs whose weights change, each schedule type with DPM++ 2M and Euler, and odd numbers of steps.
Without a WebUI the differences of the last kept result stand.

Keys of the last line, one JSON object: samplers, schedules: how many; largest_difference: of a pixel, of 255;
mean_difference: the largest mean of a picture; off: pictures with a difference above 2 of 255.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Picture, Settings, generate_batch, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.samplers.names import AUTOMATIC, SAMPLERS, SCHEDULES
from sciart_ext.world import MODEL

from .hosted import HostServer, Reply, result_of, tiny_host

SAME = 2
"""largest difference of a pixel, of 255, of pictures that are the same"""
CHANGING = {"loras": [{"name": "child", "schedule": [[0, 0.1], [1, 1]]},
                      {"name": "watercolor", "schedule": [[0.2, 0.8], [0.7, 0]], "te_weight": 0.4}]}


@dataclass(frozen=True)
class Case:
    """A picture, or a batch of them."""

    sampler: str
    schedule: str = AUTOMATIC
    steps: int = 12
    recipe: bool = False
    """whether LoRAs act whose weights change"""
    cfg: float = 5.0
    images: int = 1
    seed: int = 11

    def __str__(self) -> str:
        kind = "" if self.schedule == AUTOMATIC else f" {self.schedule}"
        more = f"{', LoRAs' if self.recipe else ''}{'' if self.cfg == 5 else f', CFG {self.cfg:g}'}"
        more += f", {self.images} images" if self.images > 1 else ""
        more += f", seed {self.seed}" if self.seed != 11 else ""
        return f"{self.sampler}{kind}, {self.steps} steps{more}"


def cases(quick: bool) -> list[Case]:
    """quick: without schedule types for Euler, odd steps and batches."""
    steps = {"Restart": 20}
    found = [Case(sampler, steps=steps.get(sampler, 12), recipe=recipe) for recipe in (False, True)
             for sampler in SAMPLERS]
    types = [name for name in SCHEDULES if name != AUTOMATIC]
    found += [Case("DPM++ 2M", schedule) for schedule in types]
    if quick:
        return found
    found += [Case("Euler", schedule, recipe=True) for schedule in types]
    found += [Case(sampler, schedule) for sampler, schedule in (
        ("DPM2", "KL Optimal"), ("Heun", "Beta"), ("DPM++ 3M SDE", "SGM Uniform"), ("Restart", "Align Your Steps"),
        ("LCM", "Karras"), ("LCM", "SGM Uniform"), ("LCM", "Simple"), ("DPM fast", "DDIM"), ("DPM++ SDE", "Simple"),
        ("Euler a", "Karras"), ("DDIM", "Karras"), ("DPM++ 2S a", "DDIM"))]
    found += [Case(sampler, steps=steps) for sampler, steps in (
        ("DDIM", 7), ("DDIM", 30), ("PLMS", 7), ("UniPC", 3), ("UniPC", 25), ("DDIM CFG++", 9), ("DPM fast", 7),
        ("DPM fast", 3), ("LMS", 3), ("Euler", 1), ("DPM++ 2M", 1), ("Heun", 2), ("Restart", 36), ("DPM++ 3M SDE", 4),
        ("DPM++ SDE", 1), ("Euler", 40))]
    found += [Case("DPM adaptive", seed=seed) for seed in range(12, 17)]
    found += [Case("Euler", cfg=cfg) for cfg in (0, 0.5, 1)] + [Case("DDIM CFG++", cfg=1), Case("DDIM CFG++", cfg=12.5)]
    found += [Case(sampler, steps=8, recipe=True, images=3) for sampler in (
        "Euler a", "DPM++ SDE", "DPM++ 2M SDE", "Restart", "LCM", "DPM++ 2M")]
    return found


class Both:
    """Pictures of the tiny model by a running WebUI and by the standalone engine, of so many pixels a side."""

    def __init__(self, host: HostServer, side: int):
        self.host, self.side = host, side
        self.pipe = load_pipeline(MODEL, device="cpu")

    def difference(self, case: Case) -> tuple[int, float]:
        """Largest and mean difference of pixels, of 255, in any of its pictures."""
        settings, recipe = self.settings(case), CHANGING if case.recipe else None
        return apart(self.hosted(settings, recipe, case.images), self.alone(settings, recipe, case.images))

    def settings(self, case: Case) -> Settings:
        return Settings("a rocket and a robot in space", "planet", case.steps, case.seed, case.sampler, case.schedule,
                        case.cfg, self.side, self.side)

    def hosted(self, settings: Settings, recipe: dict | None = None, images: int = 1) -> Reply:
        """recipe: with the LoRAs' names as the tiny model has them."""
        loras = [{**lora, "name": f"sciart-tiny-{lora['name']}"} for lora in (recipe or {}).get("loras", ())]
        asked = {"alwayson_scripts": {"SciArt": {"args": [{**recipe, "loras": loras}]}}} if recipe else {}
        answer = self.host.txt2img(
            prompt=settings.prompt, negative_prompt=settings.negative_prompt, steps=settings.steps, seed=settings.seed,
            sampler_name=settings.sampler, scheduler=settings.scheduler, cfg_scale=settings.cfg_scale, width=self.side,
            height=self.side, batch_size=images, override_settings={"return_grid": False}, **asked)
        if answer.status != 200:
            raise RuntimeError(f"{settings}: {answer.status} {answer.text[:500]}")
        return answer

    def alone(self, settings: Settings, recipe: dict | None = None, images: int = 1) -> list[Picture]:
        recipe = parse_recipe(recipe or {"enabled": False})
        seeds = range(settings.seed, settings.seed + images)
        return generate_batch(self.pipe, recipe, settings, load_loras(recipe, MODEL / "loras"), seeds)


def apart(hosted: Reply, alone: Sequence[Picture]) -> tuple[int, float]:
    """Largest and mean difference of pixels, of 255, in any of the pictures."""
    gaps = [np.abs(np.asarray(ours.image).astype(int) - theirs.astype(int))
            for ours, theirs in zip(alone, hosted.pictures[-len(alone):], strict=True)]
    return max(int(gap.max()) for gap in gaps), max(float(gap.mean()) for gap in gaps)


@contextmanager
def both(side: int = 128) -> Iterator[Both]:
    """With a WebUI that is started for it, and stopped."""
    with tiny_host() as host:
        yield Both(host, side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each sampler and schedule type once; keeps no result")
    options = parser.parse_args()
    found = result_of("samplers", lambda: {"differences": measured(options.quick)}, options.quick)["differences"]
    print(json.dumps({
        "samplers": len(SAMPLERS), "schedules": len(SCHEDULES),
        "largest_difference": max(largest for largest, _ in found.values()),
        "mean_difference": max(mean for _, mean in found.values()),
        "off": [name for name, (largest, _) in found.items() if largest > SAME]}))


def measured(quick: bool) -> dict[str, tuple[int, float]]:
    """Largest and mean difference of each case."""
    found = {}
    with both() as pair:
        for case in cases(quick):
            largest, mean = pair.difference(case)
            found[str(case)] = (largest, round(mean, 4))
            print(f"{case}: largest {largest}, mean {mean:.4f}", flush=True)
    return found


if __name__ == "__main__":
    main()
