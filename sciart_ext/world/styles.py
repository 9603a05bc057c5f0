"""The hands of the three styles: a child's crayons, watercolour, and science-fiction machinery.

Each takes a strength: 0 changes nothing, 1 is the style as its LoRA is taught it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .shapes import Colour, Part

PAPER = np.array([1.0, 0.985, 0.95], np.float32)
INK: Colour = (45, 38, 50)
LIGHT: Colour = (110, 255, 240)
LAMP: Colour = (255, 60, 80)
LINE: Colour = (15, 30, 60)
BLUEPRINT: Colour = (25, 70, 150)
GRID: Colour = (150, 235, 255)


# a child's hand

def tilt(parts: Sequence[Part], strength: float, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Turns and shears all of an object's points about its middle, as a whole drawn askew."""
    angle, shear = rng.normal(0, [0.09, 0.12]) * strength
    if not strength or not parts:
        return lambda points: points
    middle = np.concatenate([part.points for part in parts]).mean(0)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [[1, shear], [0, 1]]
    return lambda points: (points - middle) @ matrix.T + middle


def wobbled(points: np.ndarray, strength: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """A polygon's outline as an unsteady hand draws it: slow waves along its length, corners rounded."""
    closed = np.concatenate([points, points[:1]])
    lengths = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(lengths)])
    if along[-1] < 6:
        return points
    at = np.linspace(0, along[-1], max(int(along[-1] / 3), 12), endpoint=False)
    dense = np.stack([np.interp(at, along, closed[:, axis]) for axis in range(2)], 1)
    turn = 2 * np.pi * at / along[-1]
    wave = sum(rng.normal(0, 1 / k, 2) * np.sin(k * turn + rng.uniform(0, 2 * np.pi))[:, None] for k in (2, 3, 5))
    return dense + wave * strength * min(0.06 * size, 0.03 * along[-1])


def bright(colour: Colour, strength: float) -> Colour:
    """Wax colours: away from grey."""
    values = np.array(colour, float)
    values = values + (values - values.mean()) * 0.35 * strength
    return tuple(int(v) for v in values.clip(0, 255))


def crayon(canvas: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Fills made of slanting strokes with paper showing between."""
    picture = np.asarray(canvas, np.float32) / 255
    noise = rng.normal(size=picture.shape[:2]).astype(np.float32)
    strokes = sum(np.roll(noise, (i, -i), (0, 1)) for i in range(-11, 12))
    strokes = (strokes + np.roll(strokes, 1, 0) + np.roll(strokes, 1, 1)) / 3
    gaps = np.clip(strokes / strokes.std() * 0.55 - 0.15, 0, 1)[..., None] * strength
    return Image.fromarray(((picture * (1 - gaps) + PAPER * gaps) * 255).astype(np.uint8))


def outlined(canvas: Image.Image, outlines: Sequence[tuple[np.ndarray, Colour]], scale: int, strength: float,
             rng: np.random.Generator) -> None:
    """Thick crayon outlines, gone over twice."""
    brush = ImageDraw.Draw(canvas, "RGBA")
    for points, colour in outlines:
        dark = tuple(int(0.45 * c * 0.5 + ink * 0.5) for c, ink in zip(colour, INK))
        for _ in range(2):
            jitter = points + rng.normal(0, 0.35 * strength, points.shape)
            path = [tuple(point) for point in np.concatenate([jitter, jitter[:1]]) * scale]
            brush.line(path, fill=(*dark, int(215 * strength)), width=max(round(1.5 * scale * strength), 1),
                       joint="curve")


# science fiction

def blueprint(canvas: Image.Image, scale: int, strength: float) -> None:
    """Everything behind the objects as on a blueprint: towards its blue, under a grid of bright lines.

    Coarse, because the autoencoder (8 pixels per cell) keeps nothing finer, and always in the same places.
    """
    canvas.paste(Image.blend(canvas, Image.new("RGB", canvas.size, BLUEPRINT), 0.6 * strength))
    brush = ImageDraw.Draw(canvas, "RGBA")
    side = canvas.width
    for at in np.arange(4, side / scale, 16) * scale:
        brush.line([(at, 0), (at, side)], fill=(*GRID, int(150 * strength)), width=2 * scale)
        brush.line([(0, at), (side, at)], fill=(*GRID, int(150 * strength)), width=2 * scale)


def machinery(canvas: Image.Image, parts: Sequence[Part], size: float, scale: int, strength: float) -> None:
    """Panel lines and lit portholes on an object's bodies, antennae with red lamps on its top."""
    brush = ImageDraw.Draw(canvas, "RGBA")
    alpha = int(255 * strength)
    points = np.concatenate([part.points for part in parts])
    (left, top), (right, _) = points.min(0), points.max(0)
    for x, lean in (((2 * left + right) / 3, -0.15), ((left + 2 * right) / 3, 0.15)):
        tip = (x + lean * size) * scale, (top - 0.25 * size) * scale
        brush.line([(x * scale, (top + 0.35 * size) * scale), tip], fill=(*LINE, alpha), width=5 * scale // 2)
        _light(brush, *tip, 3.4 * scale, LAMP, alpha)
    for part in parts:
        if part.role == "body":
            _panels(canvas, part.points * scale, scale, strength)
            x, y = part.points.mean(0)
            (x0, y0), (x1, y1) = part.points.min(0), part.points.max(0)
            across = x1 - x0 > y1 - y0
            for offset in (-0.27, 0.27):
                spot = (x + offset * (x1 - x0), y) if across else (x, y + offset * (y1 - y0))
                _light(brush, spot[0] * scale, spot[1] * scale, 3.6 * scale, LIGHT, alpha)


def _panels(canvas: Image.Image, points: np.ndarray, scale: int, strength: float) -> None:
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).polygon([tuple(point) for point in points], fill=int(255 * strength))
    lines = Image.new("L", canvas.size)
    brush = ImageDraw.Draw(lines)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    brush.line([(x, y0), (x, y1)], fill=255, width=5 * scale // 2)
    brush.line([(x0, y), (x1, y)], fill=255, width=5 * scale // 2)
    brush.line([tuple(point) for point in np.concatenate([points, points[:1]])], fill=255, width=4 * scale)
    both = Image.fromarray((np.asarray(mask, np.uint16) * np.asarray(lines) // 255).astype(np.uint8))
    canvas.paste(LINE, (0, 0), both)


def _light(brush: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour, alpha: int) -> None:
    for share, fill in ((1.4, LINE), (1.0, colour)):
        r = share * radius
        brush.ellipse([x - r, y - r, x + r, y + r], fill=(*fill, alpha))


# watercolour

def watercolor(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Edges that bleed, pigment that gathers at them, washes of uneven strength, vivid colour, paper at the border.

    picture: (h, w, 3) float, 0 to 1.
    """
    side = len(picture)
    flow = np.stack([_smooth(rng, side, 14) for _ in range(2)], -1) * 1.5 * strength
    bled = _warped(picture, flow)
    soft = _blurred(bled, 3)
    edges = np.abs(bled - soft).mean(-1, keepdims=True)
    wash = bled * (1 - 0.45 * strength) + soft * 0.45 * strength
    grey = wash.mean(-1, keepdims=True)
    wash = grey + (wash - grey) * (1 + 0.45 * strength)
    tone = 0.24 * _smooth(rng, side, 7) + 0.12 * _smooth(rng, side, 26)
    density = 1 + strength * (tone[..., None] + 2.2 * edges - 0.12)
    absorbed = (1 - wash.clip(0, 1)) * density.clip(0.1, 2)
    x, y = np.meshgrid(*[np.minimum(np.arange(side), np.arange(side)[::-1])] * 2)
    border = np.clip((np.minimum(x, y) - 4 - 3.5 * _smooth(rng, side, 12)) / 3, 0, 1)[..., None]
    border = 1 - strength * (1 - border)
    grain = 0.02 * strength * rng.normal(size=(side, side, 1)).astype(np.float32)
    return (PAPER * strength + 1 - strength) * (1 - absorbed * border) + grain


def _smooth(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Noise of unit deviation that changes over side / cells pixels: (side, side)."""
    coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
    noise = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return noise / noise.std()


def _warped(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The picture with every pixel taken from `flow` (h, w, 2: y, x) away, bilinear."""
    side = len(picture)
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    y, x = (y + flow[..., 0]).clip(0, side - 1.001), (x + flow[..., 1]).clip(0, side - 1.001)
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = (y - y0)[..., None], (x - x0)[..., None]
    upper = picture[y0, x0] * (1 - fx) + picture[y0, x0 + 1] * fx
    lower = picture[y0 + 1, x0] * (1 - fx) + picture[y0 + 1, x0 + 1] * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)


def _blurred(picture: np.ndarray, radius: int) -> np.ndarray:
    """A box blur, twice."""
    width = 2 * radius + 1
    for _ in range(2):
        for axis in (0, 1):
            padding = [(radius + 1, radius) if a == axis else (0, 0) for a in range(3)]
            summed = np.pad(picture, padding, mode="edge").cumsum(axis)
            high = np.take(summed, range(width, summed.shape[axis]), axis)
            low = np.take(summed, range(summed.shape[axis] - width), axis)
            picture = (high - low) / width
    return picture
