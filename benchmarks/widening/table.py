"""Every way to combine times every way to compose, on the tiny world: what is in the pictures, how strong the styles
are, and what a picture costs.

Two subjects: both individuals there. Three styles, each at weight 1, at which it was trained: every one of them seen.
Both: the individuals under the preset's styles, at its weights, with which none of them is at full strength and the
individuals can still be told. Styles by two numbers: their mean strength, and the weakest one's, which is low where
one has swallowed the others. Time is the processor's, of one thread, for one picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from sciart_ext.recipe import Recipe, parse_recipe
from sciart_ext.recipe.combining import METHODS
from sciart_ext.world.scenes import INDIVIDUALS, KINDS

from .. import record
from ..tinyworld.judging import PRESET, loaded, share
from ..tinyworld.steering import CASES, FIRST_SEED, prompt_of

COMPOSE = ("merge", "switch", "composite", "spatial", "regions", "contrastive", "masked")
ABOUT_SUBJECTS = ("contrastive", "masked")
SOFT = tuple(f"orthogonal {strength}" for strength in (0.5, 0.75, 1))
"""of other strengths than the default, merged"""
SCENES = ("two subjects", "three styles", "both")
SEEDS, QUICK_SEEDS = 16, 2
STYLED = "a rocket and a planet in space"
HALVES = ([0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0])
KEPT = Path("out") / "breadth-table.jsonl"
"""rows made by this commit, so that an interrupted table goes on"""

Asked = tuple[str, str, str, int]
"""scene, compose, combine, seeds"""


def measure(quick: bool, workers: int = 1, seeds: int | None = None, only: Iterable[str] = ()) -> list[dict]:
    """Rows of the table, by scene, compose and combine; what cannot be (regions and steering without subjects, masks of
    LoRAs that are combined) is left out. `only`: scenes and ways of which it consists, all of a kind of which none is
    named."""
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    combine, compose = (("linear", "ties"), ("merge", "composite")) if quick else ((*METHODS, *SOFT), COMPOSE)
    only = set(only)
    scenes, compose, combine = ([one for one in kind if one in only] or kind for kind in (SCENES, compose, combine))
    asked = [(scene, how, joined, seeds) for scene in scenes for how in compose for joined in combine
             if (scene != "three styles" or how not in ("regions", *ABOUT_SUBJECTS))
             and (how != "masked" or joined == "linear") and (how == "merge" or joined not in SOFT)]
    commit = record.commit()
    made = dict(_kept(commit))
    missing = [row for row in asked if row not in made]
    with ProcessPoolExecutor(workers) as pool:
        for row, result in zip(missing, pool.map(_row, *zip(*missing)) if missing else ()):
            made[row] = result
            _keep(commit, row, result)
    return [made[row] for row in asked]


def _row(scene: str, compose: str, combine: str, seeds: int) -> dict:
    pictures, oracle = loaded("cpu")
    chosen = np.arange(FIRST_SEED, FIRST_SEED + seeds)
    there, styles, seconds = [], [], 0.0
    for names, own in ([((), chosen)] if scene == "three styles" else
                       zip(CASES["two"], np.array_split(chosen, len(CASES["two"])))):
        recipe, prompt = recipe_of(names, scene, compose, combine)
        began = time.process_time()
        made = pictures.by_recipe(prompt, own, recipe)[0]
        seconds += time.process_time() - began
        readings = oracle.read(made)
        there += [all(reading.count(individual=name) for name in names) if names else
                  all(reading.present(style) for style in PRESET) for reading in readings]
        styles += [[reading.styles[style] for style in PRESET] for reading in readings]
    row = {"scene": scene, "compose": compose, "combine": combine, "there": share(there),
           **({} if scene == "two subjects" else _strengths(np.array(styles))),
           "cpu_seconds": round(seconds / seeds, 2)}
    print(*(row[key] for key in ("scene", "compose", "combine")), row["there"]["share"], row.get("style"),
          row.get("weakest_style"), row["cpu_seconds"], flush=True)
    return row


def _strengths(styles: np.ndarray) -> dict:
    """Of strengths (pictures, styles)."""
    return {"style": round(float(styles.mean()), 3), "weakest_style": round(float(styles.min(1).mean()), 3),
            "styles": {name: round(float(mean), 3) for name, mean in zip(PRESET, styles.mean(0))}}


def recipe_of(names: Sequence[str], scene: str, compose: str, combine: str) -> tuple[Recipe, str]:
    """The mixture of these individuals and of the scene's styles; and the prompt."""
    steered = compose in ABOUT_SUBJECTS
    loras: list[dict] = []
    for name, half in zip(names, HALVES):
        kind = KINDS[INDIVIDUALS[name]]
        about = {"subject": kind, "trigger": name.removesuffix(kind).strip()} if steered else {}
        where = {"region": half} if compose == "regions" else {}
        loras.append({"name": name.replace(" ", "-"), "weight": 1.0, **about, **where})
    if scene != "two subjects":
        loras += [{"name": name, "weight": 1.0 if scene == "three styles" else weight}
                  for name, weight in PRESET.items()]
    words = [KINDS[INDIVIDUALS[name]] if steered else name for name in names]
    method, *strength = combine.split()
    how = {"combining": {"strength": float(strength[0])}} if strength else {}
    return (parse_recipe({"loras": loras, "compose": compose, "combine": method, **how}),
            prompt_of(words) if names else STYLED)


def _kept(commit: str) -> Iterator[tuple[Asked, dict]]:
    if KEPT.is_file() and not commit.endswith("+"):
        for line in KEPT.read_text(encoding="utf-8").splitlines():
            kept = json.loads(line)
            if kept["commit"] == commit:
                yield tuple(kept["asked"]), kept["row"]


def _keep(commit: str, asked: Asked, row: dict) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"commit": commit, "asked": asked, "row": row}) + "\n")
