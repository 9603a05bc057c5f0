"""What guidance saw, as a picture: each subject's attention at first and at last, and its mask, over the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

COLUMNS = ("looked ahead", "in the end", "mask")
TILE, HEADER, GAP = 256, 22, 4
WARM = np.array([[0, 0, 0], [120, 20, 90], [230, 70, 40], [255, 200, 60], [255, 255, 220]], np.float32)


@dataclass(frozen=True)
class Seen:
    """Of one image: attention (subjects, h, w) before its subjects' LoRAs acted and at the last step; masks alike."""

    first: Tensor
    last: Tensor
    masks: Tensor


def subject_sheet(picture: Image.Image, seen: Seen, labels: Sequence[str]) -> Image.Image:
    """A row for each subject, under its label; each map in shares of its own largest value."""
    width, height = _fitted(picture.size)
    grey = np.asarray(picture.convert("L").resize((width, height)), np.float32)[..., None] * 0.6
    sheet = Image.new("RGB", (len(COLUMNS) * (width + GAP) - GAP, len(labels) * (height + HEADER)), "white")
    brush = ImageDraw.Draw(sheet)
    for k, label in enumerate(labels):
        for j, (title, values) in enumerate(zip(COLUMNS, (seen.first[k], seen.last[k], seen.masks[k]))):
            corner = j * (width + GAP), k * (height + HEADER)
            brush.text((corner[0] + 4, corner[1] + 5), f"{label}: {title}", fill="black")
            sheet.paste(_overlaid(grey, _shares(values.float().cpu().numpy())), (corner[0], corner[1] + HEADER))
    return sheet


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = TILE / max(size)
    return round(size[0] * scale), round(size[1] * scale)


def _shares(values: np.ndarray) -> np.ndarray:
    contrast = values - values.min()
    return contrast / contrast.max() if contrast.max() > 0 else contrast


def _overlaid(grey: np.ndarray, shares: np.ndarray) -> Image.Image:
    """Shares (h, w), 0 to 1, as warm colours over a grey picture (h, w, 1)."""
    large = np.asarray(Image.fromarray(shares.astype(np.float32)).resize(grey.shape[1::-1], Image.NEAREST))
    stops = np.linspace(0, 1, len(WARM))
    colours = np.stack([np.interp(large, stops, WARM[:, channel]) for channel in range(3)], -1)
    return Image.fromarray((grey + large[..., None] * 0.7 * (colours - grey)).clip(0, 255).astype(np.uint8))
