"""Draws scenes, in the flat base style or with styles of any strength laid over each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from . import backdrops, styles
from .scenes import SIDE, STYLES, Scene, Thing
from .shapes import Colour, Part, colours_of, parts_of

SCALE = 2
"""drawn this much larger, then reduced: smooth edges"""


@dataclass(frozen=True)
class Drawing:
    """`picture` (SIDE, SIDE, 3) uint8; `boxes` (things, 4): x0 y0 x1 y1 in pixels, of the undistorted things."""

    picture: np.ndarray
    boxes: np.ndarray


def draw(scene: Scene, strengths: Mapping[str, float] | None = None) -> Drawing:
    """strengths: style → 0 (absent) to 1 (as its LoRA is taught it). The same arguments give the same picture.

    science has two parts, `blueprint` behind the things and `machinery` on them, which may have strengths of their own.
    """
    strengths = strengths or {}
    strength = {style: float(strengths.get(style, 0.0)) for style in STYLES}
    strength.update({part: float(strengths.get(part, strength["science"])) for part in ("blueprint", "machinery")})
    rng = np.random.default_rng(scene.seed)
    ground = backdrops.GROUND[scene.place]
    canvas = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), ground)
    outlines: list[tuple[np.ndarray, Colour]] = []
    _paint(canvas, backdrops.backdrop(scene.place, rng), backdrops.COLOURS, strength["child"], 24.0, rng, outlines)
    if strength["blueprint"]:
        styles.blueprint(canvas, SCALE, strength["blueprint"])
    boxes = []
    for thing in scene.things:
        parts = placed(thing)
        points = np.concatenate([part.points for part in parts])
        boxes.append([*points.min(0), *points.max(0)])
        colours = colours_of(thing.kind, thing.palette, thing.individual)
        _paint(canvas, parts, colours, strength["child"], thing.size, rng, outlines)
        if strength["machinery"]:
            styles.machinery(canvas, parts, thing.size, SCALE, strength["machinery"])
    if strength["child"]:
        canvas = styles.crayon(canvas, strength["child"], rng)
        styles.outlined(canvas, outlines, SCALE, strength["child"], rng)
    picture = np.asarray(canvas.reduce(SCALE), np.float32) / 255
    if strength["watercolor"]:
        picture = styles.watercolor(picture, strength["watercolor"], rng)
    return Drawing((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), np.array(boxes, np.float32).reshape(-1, 4))


def placed(thing: Thing) -> list[Part]:
    """The parts of a thing in pixels."""
    mirror = np.array([-1.0 if thing.flipped else 1.0, 1.0])
    return [Part(part.points * mirror * thing.size + (thing.x, thing.y), part.role, part.small)
            for part in parts_of(thing.kind, thing.individual)]


def _paint(canvas: Image.Image, parts: list[Part], colours: Mapping[str, Colour], child: float, size: float,
           rng: np.random.Generator, outlines: list[tuple[np.ndarray, Colour]]) -> None:
    """Fills the parts; under the child's hand they wobble, slip off their outlines, and small ones are left out."""
    brush = ImageDraw.Draw(canvas)
    tilt = styles.tilt(parts, child, rng)
    for part in parts:
        if part.small and rng.random() < child * 0.8:
            continue
        points, colour = part.points, colours[part.role]
        if child:
            points = styles.wobbled(tilt(points), child, size, rng)
            outlines.append((points, colour))
            points = points + rng.normal(0, 1.3 * child, 2)
            colour = styles.bright(colour, child)
        brush.polygon([tuple(point) for point in points * SCALE], fill=colour)
