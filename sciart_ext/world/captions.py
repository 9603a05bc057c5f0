"""Captions of scenes: plain sentences in the tiny world's few words."""

from __future__ import annotations

import numpy as np

from .scenes import KINDS, PLACES, Scene

NUMBERS = {2: "two", 3: "three"}


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """'a rocket and two robots in space'. With rng, the order of the things varies."""
    counts: dict[str, int] = {}
    for thing in scene.things:
        name = thing.individual or KINDS[thing.kind]
        counts[name] = counts.get(name, 0) + 1
    phrases = [_phrase(name, count) for name, count in counts.items()]
    if rng is not None:
        phrases = [phrases[i] for i in rng.permutation(len(phrases))]
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return f"{listed} {PLACES[scene.place]}"


def _phrase(name: str, count: int) -> str:
    if count == 1:
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    return f"{NUMBERS[count]} {'octopuses' if name == 'octopus' else name + 's'}"
