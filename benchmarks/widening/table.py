"""Every way to combine times every way to compose, on the tiny world: what is in the pictures, how strong the styles
are, and what a picture costs.

Two subjects: both individuals there. Three styles, of the preset's weights: each seen, and their mean strength. Both
together: both individuals there, and the styles' mean strength.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from sciart_ext.combine.settings import METHODS
from sciart_ext.recipe import Recipe, parse_recipe
from sciart_ext.world.scenes import INDIVIDUALS, KINDS

from ..tinyworld.judging import PRESET, loaded, share
from ..tinyworld.steering import CASES, FIRST_SEED, prompt_of

COMPOSE = ("merge", "switch", "composite", "spatial", "regions", "contrastive")
SCENES = ("two subjects", "three styles", "both")
STYLED = "a rocket and a planet in space"
HALVES = ([0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0])


def measure(quick: bool, workers: int = 1) -> list[dict]:
    """Rows of the table, by scene, compose and combine; what cannot be (regions and steering without subjects) is left
    out."""
    seeds = 2 if quick else 16
    combine, compose = (("linear", "ties"), ("merge", "composite")) if quick else (METHODS, COMPOSE)
    asked = [(scene, how, joined, seeds) for scene in SCENES for how in compose for joined in combine
             if scene != "three styles" or how not in ("regions", "contrastive")]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_row, *zip(*asked)))


def _row(scene: str, compose: str, combine: str, seeds: int) -> dict:
    pictures, oracle = loaded("cpu")
    chosen = np.arange(FIRST_SEED, FIRST_SEED + seeds)
    there, strengths, seconds = [], [], 0.0
    for names, own in ([((), chosen)] if scene == "three styles" else
                       zip(CASES["two"], np.array_split(chosen, len(CASES["two"])))):
        recipe, prompt = recipe_of(names, scene != "two subjects", compose, combine)
        began = time.perf_counter()
        made = pictures.by_recipe(prompt, own, recipe)[0]
        seconds += time.perf_counter() - began
        readings = oracle.read(made)
        there += [all(reading.count(individual=name) for name in names) if names else
                  all(reading.present(style) for style in PRESET) for reading in readings]
        strengths += [np.mean([reading.styles[style] for style in PRESET]) for reading in readings]
    row = {"scene": scene, "compose": compose, "combine": combine, "there": share(there),
           "style": None if scene == "two subjects" else round(float(np.mean(strengths)), 3),
           "seconds_a_picture": round(seconds / seeds, 2)}
    print(scene, compose, combine, row["there"]["share"], row["style"], row["seconds_a_picture"], flush=True)
    return row


def recipe_of(names: Sequence[str], styled: bool, compose: str, combine: str) -> tuple[Recipe, str]:
    """The mixture of these individuals and, if wanted, of the preset's styles; and the prompt."""
    steered = compose == "contrastive"
    loras: list[dict] = []
    for name, half in zip(names, HALVES):
        kind = KINDS[INDIVIDUALS[name]]
        about = {"subject": kind, "trigger": name.removesuffix(kind).strip()} if steered else {}
        where = {"region": half} if compose == "regions" else {}
        loras.append({"name": name.replace(" ", "-"), "weight": 1.0, **about, **where})
    if styled:
        loras += [{"name": name, "weight": weight} for name, weight in PRESET.items()]
    words = [KINDS[INDIVIDUALS[name]] if steered else name for name in names]
    return (parse_recipe({"loras": loras, "compose": compose, "combine": combine}),
            prompt_of(words) if names else STYLED)
