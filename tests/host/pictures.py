"""Comparing pictures, and the requests that the host tests share."""

from __future__ import annotations

import numpy as np
from server import HostServer, Reply

# The tolerance between two routes to the same picture, of 255: largest difference of a pixel, and their mean.
MAX_DIFFERENCE = 2
MEAN_DIFFERENCE = 0.1

WEIGHTS = {"child": 0.7, "watercolor": 0.5, "science": 0.4}


def recipe(weights: dict[str, float] | None = None, **more) -> dict:
    """A recipe of constant weights."""
    loras = [{"name": name, "weight": weight} for name, weight in (weights or WEIGHTS).items()]
    return {"loras": loras, **more}


def with_recipe(*args: object) -> dict:
    """The API field that hands SciArt its argument."""
    return {"alwayson_scripts": {"SciArt": {"args": list(args)}}}


def tags(weights: dict[str, float] | None = None, suffix: str = "", te: float | None = None) -> str:
    """The host's own `<lora:…>` for the same files; te: another weight for the text encoder."""
    return "".join(f"<lora:{name}{suffix}:{weight if te is None else te}:{weight}>"
                   for name, weight in (weights or WEIGHTS).items())


def difference(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    """Largest and mean difference of pixels."""
    gap = np.abs(a.astype(int) - b.astype(int))
    return int(gap.max()), float(gap.mean())


def assert_same_picture(a: Reply, b: Reply) -> None:
    assert a.status == 200, a.text
    assert b.status == 200, b.text
    assert len(a.pictures) == len(b.pictures)
    for left, right in zip(a.pictures, b.pictures):
        largest, mean = difference(left, right)
        assert largest <= MAX_DIFFERENCE and mean <= MEAN_DIFFERENCE, f"largest {largest}, mean {mean:.4f}"


def assert_other_picture(a: Reply, b: Reply) -> None:
    assert a.status == b.status == 200, (a.text, b.text)
    for left, right in zip(a.pictures, b.pictures):
        assert difference(left, right)[1] > 1.0


def end_schedule(host: HostServer) -> None:
    host.post("/probe/schedule", {})
