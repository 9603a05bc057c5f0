"""UniPC (Zhao et al., arXiv 2302.04867) for variance preserving latents, with the settings that the host has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .times import Steps

ORDER = 3


class Moment(NamedTuple):
    """A time with α and σ of its latents, x = α·x₀ + σ·ε, and λ = log(α / σ)."""

    time: float
    alpha: float
    sigma: float
    logsnr: float


class Known(NamedTuple):
    """x₀ that was found at a moment."""

    at: Moment
    clean: Tensor


def unipc(x: Tensor, steps: int, alphas: Sequence[float]) -> Steps:
    """UniPC-3 with B₁(h) = h, multistep, predicting x₀, steps even in time, of lower order at both ends (algorithms 1
    and 2). The last step has no corrector. x: unit noise; alphas: cumulative ᾱ of each time."""
    start, *moments = moments_of(steps, alphas)
    known = [Known(start, _clean(x, (yield x, start.time), start))]
    for step, now in enumerate(moments, 1):
        order = min(step, ORDER) if step < ORDER else min(ORDER, steps + 1 - step)
        base, differences, ratios = _prepared(x, known, now, order)
        length = now.logsnr - known[0].at.logsnr
        x = base + _sum(differences, _weights(ratios, length)) * (now.alpha * length)
        if step < steps:
            clean = _clean(x, (yield x, now.time), now)
            differences.append(clean - known[0].clean)
            x = base + _sum(differences, _weights([*ratios, 1.0], length)) * (now.alpha * length)
            known = [Known(now, clean), *known][:ORDER]
    return x


def moments_of(steps: int, alphas: Sequence[float]) -> list[Moment]:
    """Even in time, from the last to the first; between times linear in log α."""
    import numpy as np  # here: what runs with torch alone takes the loop and the other samplers

    halves, times = np.log(np.asarray(alphas)) / 2, np.arange(len(alphas))

    def at(time: float) -> Moment:
        log_alpha = float(np.interp(time, times, halves))
        sigma = math.sqrt(-math.expm1(2 * log_alpha))
        return Moment(time, math.exp(log_alpha), sigma, log_alpha - math.log(sigma))

    return [at(float(time)) for time in np.linspace(len(alphas) - 1, 0, steps + 1)]


def _prepared(x: Tensor, known: Sequence[Known], now: Moment, order: int) -> tuple[Tensor, list[Tensor], list[float]]:
    """The step of order 1; the differences of earlier x₀ from the last one, each over its distance in steps; those."""
    last, length = known[0], now.logsnr - known[0].at.logsnr
    ratios = [(one.at.logsnr - last.at.logsnr) / length for one in known[1:order]]
    differences = [(one.clean - last.clean) / ratio for one, ratio in zip(known[1:order], ratios)]
    base = x * (now.sigma / last.at.sigma) - last.clean * (now.alpha * math.expm1(-length))
    return base, differences, ratios


def _weights(ratios: Sequence[float], length: float) -> list[float]:
    """Of each difference: the solution of the order conditions (theorem 3.1), of one alone the paper's ½."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    import numpy as np

    conditions = np.vander(ratios, increasing=True).T
    phi, factorial, wanted = math.expm1(-length) / -length - 1, 1, []
    for k in range(1, len(ratios) + 1):
        wanted.append(phi * factorial / -length)
        factorial *= k + 1
        phi = phi / -length - 1 / factorial
    return np.linalg.solve(conditions, wanted).tolist()


def _sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor | float:
    return sum((tensor * weight for tensor, weight in zip(tensors, weights)), 0.0)


def _clean(x: Tensor, noise: Tensor, at: Moment) -> Tensor:
    return (x - noise * at.sigma) / at.alpha
