"""Weight schedules: points `(progress, weight)` and the curve between them. Pure functions.

Progress is the sampler's step index over (steps - 1), from 0 to 1, not the count of model evaluations.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from ..errors import SciArtError, shown

CURVES = ("linear", "step", "cosine")
MAX_WEIGHT = 10.0
MAX_POINTS = 1000
MAX_TEXT = 100_000
"""characters of a schedule in its short form"""
_SAME = 1e-9

Points = tuple[tuple[float, float], ...]


def step_progress(step: int, steps: int) -> float:
    """Progress of `step` (0-based) in a pass of `steps` steps; one step is progress 0."""
    return min(max(step / (steps - 1), 0.0), 1.0) if steps > 1 else 0.0


def weight_at(points: Sequence[Sequence[float]], curve: str, progress: float) -> float:
    """The weight at `progress`: a point's own value before the first and after the last point.

    Between points: `linear` interpolates, `cosine` eases with (1 - cos(pi t)) / 2, `step` holds the earlier one.
    """
    if progress <= points[0][0] + _SAME:
        return points[0][1]
    after = bisect_right(points, progress, key=lambda point: point[0] - _SAME)
    if after == len(points):
        return points[-1][1]
    (start, low), (end, high) = points[after - 1], points[after]
    if curve == "step":
        return low
    t = (progress - start) / (end - start)
    if curve == "cosine":
        t = (1 - math.cos(math.pi * t)) / 2
    return low + (high - low) * t


def check_number(value: object, field: str, low: float, high: float) -> float:
    """`value` as a float; anything but a finite number in [low, high] is refused, booleans and texts too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SciArtError(field, f"expected a number from {low:g} to {high:g}, got {shown(value)}")
    if not low <= value <= high:
        raise SciArtError(field, f"{shown(value)} is out of range; accepted: a number from {low:g} to {high:g}")
    return float(value)


def check_points(value: object, field: str = "schedule") -> Points:
    """Points in the order of progress, from `[[progress, weight], ...]` or the short text `0.2@0, 0.65@0.5`."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise SciArtError(field, f"{len(value)} characters; at most {MAX_TEXT} are accepted")
        value = _split_text(value, field)
    if not isinstance(value, Sequence) or not value:
        raise SciArtError(field, "expected points [[progress, weight], ...] or a text such as 0.2@0, 0.65@0.5")
    if len(value) > MAX_POINTS:
        raise SciArtError(field, f"{len(value)} points; at most {MAX_POINTS} are accepted")
    points = []
    for i, pair in enumerate(value):
        where = f"{field}[{i}]"
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise SciArtError(where, f"expected a pair [progress, weight], got {shown(pair)}")
        points.append((check_number(pair[0], f"{where}.progress", 0.0, 1.0),
                       check_number(pair[1], f"{where}.weight", -MAX_WEIGHT, MAX_WEIGHT)))
    points.sort(key=lambda point: point[0])
    for (a, _), (b, _) in zip(points, points[1:]):
        if b - a < _SAME:
            raise SciArtError(field, f"two points at progress {b:g}; each progress may occur once")
    return tuple(points)


def _split_text(text: str, field: str) -> list[tuple[float, float]]:
    pairs = []
    for part in text.replace(";", ",").split(","):
        weight, at, progress = part.partition("@")
        try:
            pairs.append((float(progress), float(weight)) if at else (0.0, float(weight)))
        except ValueError:
            raise SciArtError(field, f"cannot read {shown(part.strip())}; expected WEIGHT@PROGRESS with progress "
                                     "from 0 to 1, for example 0.2@0, 0.65@0.5") from None
    return pairs


def points_to_text(points: Points) -> str:
    """The short text form, `0.2@0, 0.65@0.5`; `check_points` reads it back exactly."""
    return ", ".join(f"{_short(weight)}@{_short(progress)}" for progress, weight in points)


def _short(number: float) -> str:
    return repr(int(number)) if number == int(number) else repr(number)
