"""What guidance saw, as a picture: each subject's attention at first and at last, and its mask, over the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..report.heat import GAP, HEADER, fitted, overlaid

COLUMNS = ("looked ahead", "in the end", "mask")


@dataclass(frozen=True)
class Seen:
    """Of one image: attention (subjects, h, w) before its subjects' LoRAs acted and at the last step; masks alike."""

    first: Tensor
    last: Tensor
    masks: Tensor


def subject_sheet(picture: Image.Image, seen: Seen, labels: Sequence[str]) -> Image.Image:
    """A row for each subject, under its label; each map in shares of its own largest value."""
    width, height = fitted(picture.size)
    small = np.asarray(picture.convert("RGB").resize((width, height)))
    sheet = Image.new("RGB", (len(COLUMNS) * (width + GAP) - GAP, len(labels) * (height + HEADER)), "white")
    brush = ImageDraw.Draw(sheet)
    for k, label in enumerate(labels):
        for j, (title, values) in enumerate(zip(COLUMNS, (seen.first[k], seen.last[k], seen.masks[k]))):
            corner = j * (width + GAP), k * (height + HEADER)
            brush.text((corner[0] + 4, corner[1] + 5), f"{label}: {title}", fill="black")
            tile = overlaid(small, _contrast(values.float().cpu().numpy()), 1)
            sheet.paste(Image.fromarray(tile), (corner[0], corner[1] + HEADER))
    return sheet


def _contrast(values: np.ndarray) -> np.ndarray:
    above = values - values.min()
    return above / above.max() if above.max() > 0 else above
