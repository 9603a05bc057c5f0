"""Mask pictures as a recipe has them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

PREFIX = "data:image/png;base64,"


def as_data_url(picture: Image.Image | np.ndarray, kind: str = "PNG") -> str:
    """The text of a picture, or of grey values (h, w) 0 to 255."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture.astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, kind)
    return PREFIX + base64.b64encode(file.getvalue()).decode("ascii")


def halves(height: int, width: int) -> np.ndarray:
    """White at the left, black at the right."""
    return np.where(np.arange(width) < width // 2, 255, 0)[None].repeat(height, 0)
