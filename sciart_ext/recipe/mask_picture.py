"""A region as a picture: a PNG in the recipe itself, white where the LoRA counts, made small enough for an infotext."""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
from PIL import Image

from ..errors import SciArtError
from .data_url import decoded

PREFIX = "data:image/png;base64,"
MOST_CHARACTERS = 8 << 20
KEPT_SIDE = 64
"""as fine as the latents of a 512² picture"""
LEVELS = 16
ACCEPTED = f"a box [x0, y0, x1, y1], or a PNG as the text {PREFIX}…, white where the LoRA counts"


def compact(text: str) -> str:
    """The mask as a PNG of at most `KEPT_SIDE` pixels a side and `LEVELS` greys, some hundred bytes; what is one stays
    as it is. Raises `SciArtError` (without a field) for a text that is no such picture."""
    grey = _grey(_decoded(text))
    grey.thumbnail((KEPT_SIDE, KEPT_SIDE), Image.Resampling.BOX, reducing_gap=None)
    steps = np.rint(np.asarray(grey, np.float32) / 255 * (LEVELS - 1)).astype(np.uint8)
    if not steps.any():
        raise SciArtError("", f"the mask is black everywhere; accepted: {ACCEPTED}")
    file = io.BytesIO()
    Image.fromarray(steps * (255 // (LEVELS - 1))).save(file, "PNG", optimize=True)
    return PREFIX + base64.b64encode(file.getvalue()).decode("ascii")


@functools.lru_cache(maxsize=64)
def mask_values(text: str) -> np.ndarray:
    """A compact mask as float32 (h, w), 0 to 1; not to be changed."""
    values = np.asarray(_grey(_decoded(text)), np.float32) / 255
    values.flags.writeable = False
    return values


def _decoded(text: str) -> Image.Image:
    return decoded(text, "the mask", f"accepted: {ACCEPTED}", ["PNG"], MOST_CHARACTERS)


def _grey(picture: Image.Image) -> Image.Image:
    """8-bit grey; what is transparent is black."""
    if picture.mode.startswith(("I", "F")):
        raise SciArtError("", f"the mask has 16 bits and more a pixel; accepted: {ACCEPTED}, 8 bits a pixel")
    if picture.mode == "L":
        return picture
    grey, alpha = picture.convert("RGBA").convert("LA").split()
    return Image.composite(grey, Image.new("L", picture.size), alpha)
