"""Weight schedules: points `(place, weight)` and the curve between them. Pure functions.

A place is progress, the sampler's step index over (steps - 1), from 0 to 1, not the count of model evaluations; or a
step, `"s5"`, counted from 1 as the host counts them, which is progress once the number of steps is known (`placed`).
Two points at one place are a jump: the first is what the curve comes to, the second holds from there on.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ..errors import SciArtError, shown
from .schedule_text import points_in

CURVES = ("linear", "step", "cosine")
MAX_WEIGHT = 10.0
MAX_POINTS = 1000
MAX_STEP = 10_000
MAX_TEXT = 100_000
"""characters of a schedule in its short form"""
_SAME = 1e-9
_STEP = re.compile(r"s([0-9]{1,6})")

Place = float | str
Points = tuple[tuple[Place, float], ...]


def step_progress(step: int, steps: int) -> float:
    """Progress of `step` (0-based) in a pass of `steps` steps; one step is progress 0."""
    return min(max(step / (steps - 1), 0.0), 1.0) if steps > 1 else 0.0


def step_number(place: Place) -> int | None:
    """The number of a step, from 1; None of what is progress."""
    return int(place[1:]) if isinstance(place, str) else None


def placed(points: Iterable[Sequence[Place]], steps: int) -> list[list[float]]:
    """Points by progress, in its order, in a pass of so many steps. A step after the last has progress above 1: it is
    never reached, the weight is on its way there."""
    def progress(place: Place) -> float:
        number = step_number(place)
        return place if number is None else (number - 1) / max(steps - 1, 1)

    return sorted(([progress(place), weight] for place, weight in points), key=lambda point: point[0])


def weight_at(points: Sequence[Sequence[float]], curve: str, progress: float) -> float:
    """The weight at `progress`: a point's own value before the first and after the last point.

    Between points: `linear` interpolates, `cosine` eases with (1 - cos(pi t)) / 2, `step` holds the earlier one. At a
    jump the later of its points holds.
    """
    after = bisect_right(points, progress, key=lambda point: point[0] - _SAME)
    if after in (0, len(points)):
        return points[max(after - 1, 0)][1]
    (start, low), (end, high) = points[after - 1], points[after]
    if curve == "step":
        return low
    t = max((progress - start) / (end - start), 0.0)
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


def check_points(value: object, field: str = "schedule", in_steps: bool = True) -> Points:
    """Points in the order of their places, from `[[progress, weight], ...]` or the short text `0.2@0, 0.65@0.5`;
    in_steps: whether places may be steps, `[["s5", 0.8]]` or `0.8@s5`. Of both kinds together the order is known once
    the number of steps is: they stay as they are."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise SciArtError(field, f"{len(value)} characters; at most {MAX_TEXT} are accepted")
        value = points_in(value, field)
    if not isinstance(value, Sequence) or not value:
        raise SciArtError(field, "expected points [[progress, weight], ...] or a text such as 0.2@0, 0.65@0.5")
    if len(value) > MAX_POINTS:
        raise SciArtError(field, f"{len(value)} points; at most {MAX_POINTS} are accepted")
    points = []
    for i, pair in enumerate(value):
        where = f"{field}[{i}]"
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise SciArtError(where, f"expected a pair [progress, weight], got {shown(pair)}")
        points.append((_check_place(pair[0], f"{where}.progress", in_steps),
                       check_number(pair[1], f"{where}.weight", -MAX_WEIGHT, MAX_WEIGHT)))
    by_progress = sorted((point for point in points if not isinstance(point[0], str)), key=lambda point: point[0])
    by_step = sorted((point for point in points if isinstance(point[0], str)), key=lambda point: step_number(point[0]))
    for (a, _), _, (b, _) in zip(by_progress, by_progress[1:], by_progress[2:]):
        if b - a < _SAME:
            raise SciArtError(field, f"three points at progress {b:g}; accepted: one, or two, of which the second "
                                     "holds from there on")
    for (a, _), _, (b, _) in zip(by_step, by_step[1:], by_step[2:]):
        if a == b:
            raise SciArtError(field, f"three points at step {b[1:]}; accepted: one, or two, of which the second holds "
                                     "from there on")
    return tuple(points if by_progress and by_step else by_progress or by_step)


def _check_place(value: object, field: str, in_steps: bool) -> Place:
    step = _STEP.fullmatch(value) if isinstance(value, str) and in_steps else None
    if step is not None:
        number = int(step[1])
        if not 1 <= number <= MAX_STEP:
            raise SciArtError(field, f"{value!r} is out of range; accepted: steps from s1, the first, to s{MAX_STEP}")
        return f"s{number}"
    too = ", or a step such as 's5'" if in_steps else ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SciArtError(field, f"expected progress, a number from 0 to 1{too}, got {shown(value)}")
    if not 0.0 <= value <= 1.0:
        raise SciArtError(field, f"{shown(value)} is out of range; accepted: progress, a number from 0 to 1{too}")
    return float(value)


def points_to_text(points: Iterable[Sequence[Place]]) -> str:
    """The short text form, `0.2@0, 0.65@0.5, 0.8@s20`; `check_points` reads it back exactly."""
    return ", ".join(f"{_short(weight)}@{place if isinstance(place, str) else _short(place)}"
                     for place, weight in points)


def _short(number: float) -> str:
    return repr(int(number)) if number == int(number) else repr(number)
