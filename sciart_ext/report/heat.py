"""Values over a picture as colours: on one scale, alone or laid over the picture, with a colour bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

# from dark to light, so that it reads without its hues too
STOPS = np.array([[0, 0, 0], [120, 20, 90], [230, 70, 40], [255, 200, 60], [255, 255, 220]], np.float32)
GREY = 0.6
"""brightness of the picture under a heatmap"""
COVER = 0.7
"""opacity of the warmest colour"""
TILE, HEADER, GAP, BAR = 256, 22, 4, 26
"""pixels of a sheet: longer side of a picture, lines of text, between pictures, colour bar"""


def coloured(values: np.ndarray, highest: float) -> np.ndarray:
    """Values (h, w) → colours (h, w, 3), uint8; from 0, black, to `highest`, nearly white."""
    return _colours(_shares(values, highest)).round().astype(np.uint8)


def overlaid(picture: np.ndarray, values: np.ndarray, highest: float) -> np.ndarray:
    """Values (h', w') as colours over a picture (h, w, 3), 8-bit, which is grey and darker there → (h, w, 3), uint8."""
    image = Image.fromarray(picture)
    grey = np.asarray(image.convert("L"), np.float32)[..., None] * GREY
    shares = _shares(values, highest).astype(np.float32)
    shares = np.asarray(Image.fromarray(shares).resize(image.size, Image.NEAREST))
    return (grey + shares[..., None] * COVER * (_colours(shares) - grey)).clip(0, 255).astype(np.uint8)


def heat_sheet(pictures: Sequence[np.ndarray], maps: Sequence[np.ndarray], labels: Sequence[str], unit: str,
               ) -> Image.Image:
    """Maps (h, w) over their pictures (h, w, 3), side by side under their labels, on one scale, which a colour bar
    tells: `highest_of` them."""
    highest = highest_of(maps)
    width, height = fitted(Image.fromarray(pictures[0]).size)
    whole = len(maps) * (width + GAP) - GAP
    sheet = Image.new("RGB", (whole, HEADER + height + GAP + BAR), "white")
    brush = ImageDraw.Draw(sheet)
    for k, (picture, values, label) in enumerate(zip(pictures, maps, labels)):
        brush.text((k * (width + GAP) + 4, 5), label, fill="black")
        tile = Image.fromarray(overlaid(picture, values, highest)).resize((width, height), Image.NEAREST)
        sheet.paste(tile, (k * (width + GAP), HEADER))
    sheet.paste(_bar(whole, highest, unit), (0, HEADER + height + GAP))
    return sheet


def highest_of(maps: Sequence[np.ndarray]) -> float:
    """The value that is shown as the warmest colour: of a thousand, five are larger, and shown like it."""
    return float(np.quantile(np.concatenate([values.ravel() for values in maps]), 0.995))


def fitted(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in proportion, the longer `TILE`."""
    scale = TILE / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _bar(width: int, highest: float, unit: str) -> Image.Image:
    ramp = coloured(np.linspace(0, 1, width, dtype=np.float32)[None].repeat(10, 0), 1)
    bar = Image.new("RGB", (width, BAR), "white")
    bar.paste(Image.fromarray(ramp), (0, 0))
    brush = ImageDraw.Draw(bar)
    for share in (0, 0.5, 1):
        text = f"{share * highest:.3g} {unit}{' and more' if share == 1 else ''}"
        room = width - brush.textlength(text) - 2
        brush.text((2 + share * (room - 2), 12), text, fill="black")
    return bar


def _shares(values: np.ndarray, highest: float) -> np.ndarray:
    return np.clip(values / highest, 0, 1) if highest > 0 else np.zeros_like(values)


def _colours(shares: np.ndarray) -> np.ndarray:
    stops = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(shares, stops, STOPS[:, channel]) for channel in range(3)], -1)
