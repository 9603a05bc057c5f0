"""Drawn scenes to train on, made once by all cores and kept in out/training."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciart_ext.world.captions import caption
from sciart_ext.world.drawing import draw
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, SIDE, STYLES, Scene, random_scene

CHUNK = 250
MOST_THINGS = 3
Sampler = Callable[[np.random.Generator], tuple[Scene, dict[str, float]]]


@dataclass(frozen=True)
class Drawn:
    """n scenes: pictures (n, 128, 128, 3) uint8, captions, style strengths (n, 3), and per thing (n, 3, …), padded
    with -1: kinds, individuals (their number; count of individuals for nobody) and boxes (4)."""

    pictures: np.ndarray
    captions: list[str]
    styles: np.ndarray
    kinds: np.ndarray
    individuals: np.ndarray
    boxes: np.ndarray


def plain(rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    """Ordinary things in the flat base style: what the base model learns."""
    return random_scene(rng), {}


def crowded(rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    """The same with more scenes of two and three things, which are harder to lay out."""
    count = int(rng.choice([1, 2, 3], p=[0.2, 0.35, 0.45]))
    return random_scene(rng, [str(kind) for kind in rng.choice(list(KINDS), count)]), {}


def anything(rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    """Individuals among ordinary things, in any mixture of styles: what oracle and autoencoder learn."""
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    kinds, individuals = [], []
    for _ in range(count):
        named = str(rng.choice(list(INDIVIDUALS))) if rng.random() < 0.4 else None
        kinds.append(INDIVIDUALS[named] if named else str(rng.choice(list(KINDS))))
        individuals.append(named)
    scene = random_scene(rng, kinds, individuals=individuals)
    if rng.random() < 0.3:
        return scene, {}
    present = rng.random(len(STYLES)) < 0.45
    strengths = {style: float(rng.uniform(0.5, 1.0)) for style, there in zip(STYLES, present) if there}
    if "science" in strengths and rng.random() < 0.5:  # by halves: its strength is their mean
        strengths.update(blueprint=float(rng.uniform(0, 1)), machinery=float(rng.uniform(0, 1)))
        strengths["science"] = (strengths["blueprint"] + strengths["machinery"]) / 2
    return scene, strengths


def drawn_set(sampler: Sampler, count: int, seed: int, folder: Path) -> Drawn:
    """`count` scenes of a sampler; read from the folder where they have been drawn before."""
    path = folder / f"{sampler.__name__}-{count}-{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"drawing {count} scenes ({sampler.__name__})", flush=True)
        starts = range(0, count, CHUNK)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            chunks = list(pool.map(_draw_chunk, [sampler] * len(starts), [min(CHUNK, count - s) for s in starts],
                                   [(seed, s) for s in starts]))
        columns = [np.concatenate(column) for column in zip(*chunks)]
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, *columns)
        os.replace(unfinished, path)
    with np.load(path) as stored:
        pictures, captions, styles, kinds, individuals, boxes = (stored[f"arr_{i}"] for i in range(6))
    return Drawn(pictures, [str(text) for text in captions], styles, kinds, individuals, boxes)


def _draw_chunk(sampler: Sampler, count: int, seed: tuple[int, int]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    pictures = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    captions, styles = [], np.zeros((count, len(STYLES)), np.float32)
    kinds = np.full((count, MOST_THINGS), -1)
    individuals = np.full((count, MOST_THINGS), -1)
    boxes = np.full((count, MOST_THINGS, 4), -1, np.float32)
    for i in range(count):
        scene, strengths = sampler(rng)
        drawing = draw(scene, strengths)
        pictures[i] = drawing.picture
        captions.append(caption(scene, rng))
        styles[i] = [strengths.get(style, 0.0) for style in STYLES]
        for j, thing in enumerate(scene.things):
            kinds[i, j] = list(KINDS).index(thing.kind)
            individuals[i, j] = [*INDIVIDUALS, None].index(thing.individual)
            boxes[i, j] = drawing.boxes[j]
    return pictures, np.array(captions, dtype="U96"), styles, kinds, individuals, boxes
