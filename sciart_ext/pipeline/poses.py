"""Poses to begin with, as ControlNet's openpose preprocessor would draw them: coloured limbs and joints on black."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import SciArtError, did_you_mean, shown

if TYPE_CHECKING:  # whoever reads presets draws none
    from PIL import Image

ASPECT = 2 / 3
"""width over height of the pictures that the poses are made for"""
JOINTS = ("nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
          "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
          "right ear", "left ear")
"""by openpose's numbers; right and left are the person's own"""
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
         (0, 14), (14, 16), (0, 15), (15, 17))
COLOURS = ((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
           (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
           (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85))
"""openpose's, of joints and of limbs"""
_LIMB_SHADE = 0.6

_STANDING = {0: (0.50, 0.13), 1: (0.50, 0.24), 2: (0.37, 0.24), 3: (0.32, 0.38), 4: (0.30, 0.51), 5: (0.63, 0.24),
             6: (0.68, 0.38), 7: (0.70, 0.51), 8: (0.43, 0.52), 9: (0.42, 0.72), 10: (0.41, 0.92), 11: (0.57, 0.52),
             12: (0.58, 0.72), 13: (0.59, 0.92), 14: (0.465, 0.11), 15: (0.535, 0.11), 16: (0.42, 0.125),
             17: (0.58, 0.125)}
POSES = {
    "portrait": {0: (0.50, 0.35), 1: (0.50, 0.57), 2: (0.17, 0.60), 3: (0.10, 0.92), 5: (0.83, 0.60), 6: (0.90, 0.92),
                 14: (0.435, 0.31), 15: (0.565, 0.31), 16: (0.35, 0.335), 17: (0.65, 0.335)},
    "waving": {0: (0.48, 0.27), 1: (0.48, 0.45), 2: (0.26, 0.46), 3: (0.12, 0.34), 4: (0.10, 0.15), 5: (0.70, 0.46),
               6: (0.77, 0.68), 7: (0.72, 0.88), 8: (0.37, 0.90), 11: (0.60, 0.90), 14: (0.43, 0.24),
               15: (0.53, 0.24), 16: (0.37, 0.26), 17: (0.59, 0.26)},
    "standing": _STANDING,
}
"""by name: joints by number, their places as shares of a picture of that aspect; joints outside of it are left out"""


def pose_picture(name: str, width: int, height: int) -> Image.Image:
    """The pose `name` as RGB, whole and in the middle of a picture of `width` × `height` pixels."""
    from PIL import Image, ImageDraw

    if name not in POSES:
        raise SciArtError("pose", f"no pose {shown(name)}; {did_you_mean(name, POSES)}, or a picture as a data URL")
    high = min(height, width / ASPECT)
    wide = high * ASPECT
    left, top = (width - wide) / 2, (height - high) / 2
    places = {joint: (left + x * wide, top + y * high) for joint, (x, y) in POSES[name].items()}
    thick = max(high / 128, 1.0)  # openpose: 4 of 512
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for (start, end), colour in zip(LIMBS, COLOURS):
        if start in places and end in places:
            draw.polygon(_limb(places[start], places[end], thick), tuple(int(part * _LIMB_SHADE) for part in colour))
    for joint, (x, y) in places.items():
        draw.ellipse([x - thick, y - thick, x + thick, y + thick], COLOURS[joint])
    return picture


def _limb(start: tuple[float, float], end: tuple[float, float], thick: float) -> list[tuple[float, float]]:
    """An ellipse from joint to joint, `2 * thick` pixels across, as the corners of a polygon."""
    middle_x, middle_y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    along_x, along_y = (end[0] - start[0]) / 2, (end[1] - start[1]) / 2
    length = math.hypot(along_x, along_y) or 1.0
    across_x, across_y = -along_y / length * thick, along_x / length * thick
    return [(middle_x + math.cos(turn) * along_x + math.sin(turn) * across_x,
             middle_y + math.cos(turn) * along_y + math.sin(turn) * across_y)
            for turn in (math.tau * k / 24 for k in range(24))]
