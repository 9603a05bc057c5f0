"""What a scene of the tiny world can contain, and random scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIDE = 128
"""of every picture, in pixels"""

# kind of object → its word in captions
KINDS = {
    "rocket": "rocket",
    "submarine": "submarine",
    "robot": "robot",
    "planet": "planet",
    "dome": "dome",
    "car": "flying car",
    "octopus": "octopus",
    "station": "space station",
}
PLACES = {"sky": "in the sky", "sea": "in the sea", "space": "in space", "city": "in the city"}
# individual → its kind; the words before the kind are what its LoRA is triggered by
INDIVIDUALS = {
    "red striped rocket": "rocket",
    "golden rocket": "rocket",
    "yellow visor robot": "robot",
    "purple submarine": "submarine",
    "ringed blue planet": "planet",
}
STYLES = ("child", "watercolor", "science")
PALETTES = 3
"""ordinary colourings of each kind; individuals have their own"""
SIZES = {1: (28, 40), 2: (21, 27), 3: (17, 21)}
"""half the height or width of an object in pixels, by how many are in the scene"""
MARGIN = 2


@dataclass(frozen=True)
class Thing:
    """One object: centre (x, y) and half extent `size` in pixels; `palette` counts the ordinary colourings."""

    kind: str
    x: float
    y: float
    size: float
    palette: int = 0
    individual: str | None = None
    flipped: bool = False


@dataclass(frozen=True)
class Scene:
    """A place with one to three things. `seed` decides the place's details and the hand of the styles."""

    place: str
    things: tuple[Thing, ...]
    seed: int = 0


def random_scene(rng: np.random.Generator, kinds: Sequence[str] | None = None, place: str | None = None,
                 individuals: Sequence[str | None] | None = None) -> Scene:
    """A scene of one to three things, or of the given kinds (and individuals: one name or None per kind)."""
    if kinds is None:
        count = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
        kinds = [str(kind) for kind in rng.choice(list(KINDS), count)]
    individuals = individuals or [None] * len(kinds)
    sizes = rng.uniform(*SIZES[len(kinds)], len(kinds))
    centres = _centres(rng, sizes)
    things = tuple(
        Thing(kind, float(x), float(y), float(size), int(rng.integers(PALETTES)), individual, bool(rng.integers(2)))
        for kind, individual, size, (x, y) in zip(kinds, individuals, sizes, centres))
    return Scene(place or str(rng.choice(list(PLACES))), things, int(rng.integers(2**31)))


def _centres(rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
    """Places for squares of these half extents, apart from each other: the best of many throws."""
    best, overlap = None, np.inf
    for _ in range(200):
        reach = SIDE / 2 - sizes - MARGIN
        centres = SIDE / 2 + rng.uniform(-1, 1, (len(sizes), 2)) * reach[:, None]
        gaps = np.abs(centres[:, None] - centres[None]) - (sizes[:, None] + sizes[None])[..., None]
        inside = np.clip(-gaps, 0, None).prod(-1)  # area two squares share
        shared = np.triu(inside, 1).sum()
        if shared < overlap:
            best, overlap = centres, shared
        if not shared:
            break
    return best
