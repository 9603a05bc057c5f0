"""A pose as ControlNet's openpose preprocessor draws it: coloured limbs and joints on black."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

JOINTS = {  # openpose's numbers: where they are in a picture of size 1 × 1
    0: (0.50, 0.18), 1: (0.50, 0.30), 2: (0.38, 0.30), 3: (0.28, 0.20), 4: (0.22, 0.08), 5: (0.62, 0.30),
    6: (0.72, 0.42), 7: (0.76, 0.56), 8: (0.43, 0.56), 9: (0.40, 0.74), 10: (0.36, 0.92), 11: (0.57, 0.56),
    12: (0.60, 0.74), 13: (0.66, 0.92), 14: (0.47, 0.15), 15: (0.53, 0.15), 16: (0.43, 0.17), 17: (0.57, 0.17),
}
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
         (0, 14), (14, 16), (0, 15), (15, 17))
COLOURS = ((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
           (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
           (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85))


def pose_picture(width: int, height: int, mirrored: bool = False) -> np.ndarray:
    """A figure with one raised arm, uint8 (height, width, 3)."""
    picture = Image.new("RGB", (width, height))
    draw, thick = ImageDraw.Draw(picture), max(width // 32, 2)
    places = {joint: ((1 - x if mirrored else x) * width, y * height) for joint, (x, y) in JOINTS.items()}
    for (start, end), colour in zip(LIMBS, COLOURS):
        draw.line([places[start], places[end]], fill=tuple(int(part * 0.6) for part in colour), width=thick)
    for joint, (x, y) in places.items():
        draw.ellipse([x - thick, y - thick, x + thick, y + thick], fill=COLOURS[joint])
    return np.asarray(picture)
