"""Distances between pictures as people see them."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_cie76, rgb2lab


def lab(pictures: np.ndarray) -> np.ndarray:
    """8-bit sRGB pictures (…, h, w, 3) in CIELAB, float64, the same shape: distances there are ΔE*ab (CIE 1976)."""
    return rgb2lab(pictures)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CIELAB ΔE*ab (CIE 1976) of two 8-bit sRGB pictures (h, w, 3), per pixel (h, w); about 2 is just visible."""
    return deltaE_cie76(lab(first), lab(second))
