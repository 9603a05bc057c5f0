"""The shares that the benchmark reports: what the oracle gets right, and what it sees in the model's pictures."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.stats import rankdata

from sciart_ext.world import MODEL
from sciart_ext.world.captions import caption
from sciart_ext.world.drawing import draw
from sciart_ext.world.oracle import Oracle, Reading
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, PLACES, STYLES, Scene, Thing, random_scene

from . import steering
from .sampling import COMPOSITIONS, Pictures

PRESET = {"child": 0.65, "watercolor": 0.55, "science": 0.5}
WEAKEST = 0.5
"""strength from which the oracle must see a style"""


def share(outcomes: Iterable[bool]) -> dict:
    """The share of true outcomes with its 95 % interval (Wilson 1927)."""
    outcomes = list(outcomes)
    n, p, z = len(outcomes), sum(outcomes) / len(outcomes), 1.96
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(centre - half, 0), min(centre + half, 1)
    return {"share": round(p, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def area(score: np.ndarray, good: np.ndarray) -> float:
    """AUC, by ranks; not a number where all noises are alike."""
    many, few = int(good.sum()), int((~good).sum())
    if not many or not few:
        return float("nan")
    return float((rankdata(score)[good].sum() - many * (many + 1) / 2) / (many * few))


@functools.cache
def loaded(device: str) -> tuple[Pictures, Oracle]:
    """The model and the oracle, once in each process, which then has one thread."""
    torch.set_num_threads(1)
    return Pictures(MODEL, device), Oracle.load()


def megabytes() -> float:
    """The tiny model with its LoRAs, as the repository carries it."""
    return round(sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) / 1e6, 2)


# the oracle

DISTURBANCES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "none": lambda picture, rng: picture,
    "noise 0.1": lambda picture, rng: _noisy(picture, rng, 0.1),
    "noise 0.2": lambda picture, rng: _noisy(picture, rng, 0.2),
    "blur 1": lambda picture, rng: _blurred(picture, 1.0),
    "blur 2": lambda picture, rng: _blurred(picture, 2.0),
    "shift 8": lambda picture, rng: np.roll(picture, rng.integers(-8, 9, 2), (0, 1)),
    "shift 24": lambda picture, rng: np.roll(picture, rng.integers(-24, 25, 2), (0, 1)),
}


def oracle_shares(oracle: Oracle, count: int) -> dict:
    """Scenes of which all objects, all individuals, all styles are right, by disturbance of the picture."""
    rng = np.random.default_rng(987_654)
    scenes = [_fresh(rng) for _ in range(count)]
    pictures = [draw(scene, strengths).picture for scene, strengths in scenes]
    results = {}
    for name, disturb in DISTURBANCES.items():
        readings = oracle.read([disturb(picture, rng) for picture in pictures])
        results[name] = {
            "objects": share(_kinds(scene) == _kinds_seen(r) for (scene, _), r in zip(scenes, readings)),
            "individuals": share(_individuals(scene) == _individuals_seen(r)
                                 for (scene, _), r in zip(scenes, readings)),
            "styles": share(all(r.present(style) == (style in strengths) for style in STYLES)
                            for (_, strengths), r in zip(scenes, readings)),
            "strength_error": round(float(np.mean([abs(r.styles[style] - strengths.get(style, 0.0))
                                                   for (_, strengths), r in zip(scenes, readings)
                                                   for style in STYLES])), 4),
        }
    return results


def _fresh(rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    """Individuals among ordinary things, apart from each other, each style there or not."""
    while True:
        named = [str(rng.choice(list(INDIVIDUALS))) if rng.random() < 0.4 else None
                 for _ in range(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))]
        kinds = [INDIVIDUALS[name] if name else str(rng.choice(list(KINDS))) for name in named]
        scene = random_scene(rng, kinds, individuals=named)
        if not any(_covered(a, b) for a, b in itertools.combinations(scene.things, 2)):
            break
    present = rng.random(len(STYLES)) < 0.4
    return scene, {style: float(rng.uniform(WEAKEST, 1)) for style, there in zip(STYLES, present) if there}


def _covered(a: Thing, b: Thing) -> bool:
    return max(abs(a.x - b.x), abs(a.y - b.y)) < 0.8 * (a.size + b.size)


def _kinds(scene: Scene) -> list[str]:
    return sorted(thing.kind for thing in scene.things)


def _kinds_seen(reading: Reading) -> list[str]:
    return sorted(seen.kind for seen in reading.objects)


def _individuals(scene: Scene) -> list[str]:
    return sorted(thing.individual for thing in scene.things if thing.individual)


def _individuals_seen(reading: Reading) -> list[str]:
    return sorted(seen.individual for seen in reading.objects if seen.individual)


def _noisy(picture: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    return (picture + rng.normal(0, 255 * deviation, picture.shape)).clip(0, 255).astype(np.uint8)


def _blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


# the model

def one_object(pictures: Pictures, oracle: Oracle, seeds: np.ndarray) -> dict:
    """Prompts for one object: is it there?"""
    outcomes = []
    for chosen, scene in _prompts(seeds, 1):
        for reading in oracle.read(pictures.make(caption(scene), chosen)):
            outcomes.append(reading.count(scene.things[0].kind) >= 1)
    return share(outcomes)


def two_objects(pictures: Pictures, oracle: Oracle, seeds: np.ndarray) -> dict:
    """Prompts for two objects of different kinds: are both there?"""
    outcomes = []
    for chosen, scene in _prompts(seeds, 2):
        for reading in oracle.read(pictures.make(caption(scene), chosen)):
            outcomes.append(all(reading.count(thing.kind) >= 1 for thing in scene.things))
    return share(outcomes)


def subject_alone(pictures: Pictures, oracle: Oracle, seeds: np.ndarray, name: str) -> dict:
    """An individual's LoRA at weight 1, prompted, in every place: is it there?"""
    outcomes = []
    for place, chosen in zip(PLACES, np.array_split(seeds, len(PLACES))):
        thing = Thing(INDIVIDUALS[name], 64, 64, 30, individual=name)
        made = pictures.make(caption(Scene(place, (thing,))), chosen, {name: 1.0}) if len(chosen) else []
        outcomes += [reading.count(individual=name) >= 1 for reading in oracle.read(made)]
    return share(outcomes)


def style_alone(pictures: Pictures, oracle: Oracle, seeds: np.ndarray, style: str) -> dict:
    """A style's LoRA at weight 1 on one-object prompts: is the style there, is the object kept?"""
    styled, kept = [], []
    for chosen, scene in _prompts(seeds, 1):
        for reading in oracle.read(pictures.make(caption(scene), chosen, {style: 1.0})):
            styled.append(reading.present(style))
            kept.append(reading.count(scene.things[0].kind) >= 1)
    return {"style": share(styled), "object": share(kept)}


def preset(pictures: Pictures, oracle: Oracle, seeds: np.ndarray, weights: dict[str, float]) -> dict:
    """Mean strength of each style without LoRAs, or under the science-imagination preset's mixture."""
    readings = [reading for chosen, scene in _prompts(seeds, 1)
                for reading in oracle.read(pictures.make(caption(scene), chosen, weights))]
    return {style: round(float(np.mean([r.styles[style] for r in readings])), 4) for style in STYLES}


def both_present(pictures: Pictures, oracle: Oracle, seeds: np.ndarray, case: str, compose: str) -> dict:
    """Two, or three, individuals mixed at weight 1: is every one there?"""
    return share(steering.make(pictures, oracle, seeds, case, compose, styled=False).present)


def _prompts(seeds: np.ndarray, things: int):
    """(some of the seeds, a scene to be told): every kind as often as the others."""
    rng = np.random.default_rng(55)
    groups = max(min(len(seeds) // 5, 40), 1)
    for number, chosen in enumerate(np.array_split(seeds, groups)):
        first = list(KINDS)[number % len(KINDS)]
        others = rng.choice([kind for kind in KINDS if kind != first], things - 1, replace=False)
        yield chosen, random_scene(rng, [first, *map(str, others)])


# where a figure stands in the result → (what measures it, what of)
MEASURES: dict[tuple[str, ...], tuple[Callable, tuple]] = {
    **{("both_present", case, compose): (both_present, (case, compose))
       for case in steering.CASES for compose in COMPOSITIONS},
    **{("subject_alone", name): (subject_alone, (name,)) for name in INDIVIDUALS},
    **{("style_alone", style): (style_alone, (style,)) for style in STYLES},
    ("preset", "base"): (preset, ({},)),
    ("preset", "mixture"): (preset, (PRESET,)),
    ("one_object",): (one_object, ()),
    ("two_objects",): (two_objects, ()),
}
