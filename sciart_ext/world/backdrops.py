"""The places behind the objects, as polygons in pixels."""

from __future__ import annotations

import numpy as np

from .scenes import SIDE
from .shapes import Colour, Part, box, ellipse, polygon

GROUND: dict[str, Colour] = {"sky": (150, 205, 245), "sea": (40, 130, 165), "space": (22, 22, 58),
                             "city": (250, 205, 175)}
COLOURS: dict[str, Colour] = {
    "cloud": (245, 250, 255), "sun": (255, 235, 130), "deep": (25, 100, 140), "sand": (215, 195, 140),
    "weed": (50, 150, 90), "bubble": (170, 220, 230), "star": (250, 250, 210), "haze": (48, 38, 92),
    "tower": (170, 150, 185), "near tower": (125, 110, 150), "lit": (255, 240, 170), "street": (95, 90, 115)}


def backdrop(place: str, rng: np.random.Generator) -> list[Part]:
    """The polygons of a place, back to front; COLOURS has their roles."""
    return {"sky": _sky, "sea": _sea, "space": _space, "city": _city}[place](rng)


def _sky(rng: np.random.Generator) -> list[Part]:
    x, y = rng.uniform(14, SIDE - 14), rng.uniform(12, 30)
    parts = [Part(ellipse(x, y, 10, 10), "sun", small=True)]
    for _ in range(3):
        x, y, r = rng.uniform(0, SIDE), rng.uniform(10, SIDE - 8), rng.uniform(7, 11)
        parts += [Part(ellipse(x + dx * r, y + dy * r, r * k, r * k * 0.8), "cloud")
                  for dx, dy, k in ((-1, 0.15, 0.8), (0, -0.2, 1.0), (1, 0.15, 0.8))]
    return parts


def _sea(rng: np.random.Generator) -> list[Part]:
    level = rng.uniform(60, 80)
    waves = [(x, level + 3 * np.sin(x / 9)) for x in np.linspace(0, SIDE, 33)]
    parts = [Part(polygon(*waves, (SIDE, SIDE), (0, SIDE)), "deep"),
             Part(polygon((0, 118), (40, 113), (90, 119), (SIDE, 114), (SIDE, SIDE), (0, SIDE)), "sand")]
    for x in rng.uniform(4, SIDE - 4, 4):
        h = rng.uniform(14, 26)
        leaf = polygon((x - 3, 120), (x - 5, 120 - h / 2), (x, 120 - h), (x + 4, 120 - h / 2), (x + 3, 120))
        parts.append(Part(leaf, "weed", small=True))
    return parts + [Part(ellipse(*rng.uniform(6, 110, 2), r, r), "bubble", small=True)
                    for r in rng.uniform(1.5, 3.5, 7)]


def _space(rng: np.random.Generator) -> list[Part]:
    parts = [Part(ellipse(*rng.uniform(0, SIDE, 2), *rng.uniform(25, 45, 2)), "haze") for _ in range(2)]
    return parts + [Part(ellipse(*rng.uniform(2, SIDE - 2, 2), r, r), "star", small=True)
                    for r in rng.uniform(0.8, 1.9, 26)]


def _city(rng: np.random.Generator) -> list[Part]:
    parts = []
    for role, low, high, windows in (("tower", 56, 80, False), ("near tower", 84, 98, True)):
        x = rng.uniform(-8, 0)
        while x < SIDE:
            width, top = rng.uniform(16, 24), rng.uniform(low, high)
            parts.append(Part(box(x, top, x + width, SIDE), role))
            if windows:
                parts += [Part(box(x + width * f - 2, top + 5, x + width * f + 2, top + 10), "lit", small=True)
                          for f in (0.28, 0.72)]
            x += width + rng.uniform(2, 7)
    return parts + [Part(box(0, 118, SIDE, SIDE), "street")]
