"""Samplers that follow σ down by the slope (x − x₀) / σ, some with fresh noise at each step.

Arguments: x, latents (images, c, h, w) with noise of σ = sigmas[0]; sigmas, descending; draw, where noise is added.
Each yields (x, σ), is sent x₀ and returns the latents at the last σ.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from .noise import Draw
from .schedules import karras_between

Steps = Generator[tuple[Tensor, float], Tensor, Tensor]
LMS_ORDER = 4
RESTART_AT, RESTART_FROM = 0.1, 2.0
"""a restart goes from the one σ back up to the other"""


def ancestral(sigma: float, following: float) -> tuple[float, float]:
    """(σ to go down to, σ of the noise then added): the posterior of DDPM (Ho et al., arXiv 2006.11239, equation 7)."""
    down = following**2 / sigma
    return down, max(following**2 - down**2, 0.0) ** 0.5


def euler(x: Tensor, sigmas: Sequence[float]) -> Steps:
    """Euler's method (Karras et al., arXiv 2206.00364, algorithm 1 without its correction)."""
    for sigma, following in pairwise(sigmas):
        denoised = yield x, sigma
        x = x + (x - denoised) * ((following - sigma) / sigma)
    return x


def euler_ancestral(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """Euler's method to below the next σ, and noise up to it."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following)
        denoised = yield x, sigma
        x = x + (x - denoised) * ((down - sigma) / sigma)
        if following > 0:
            x = x + draw(sigma, following) * up
    return x


def heun_step(x: Tensor, sigma: float, following: float) -> Steps:
    """Euler's method with the mean of the slopes here and there; to 0, where there is none, with the one here."""
    slope = (x - (yield x, sigma)) / sigma
    there = x + slope * (following - sigma)
    if following == 0:
        return there
    denoised = yield there, following
    return x + (slope + (there - denoised) / following) * ((following - sigma) / 2)


def heun(x: Tensor, sigmas: Sequence[float]) -> Steps:
    """Karras et al., arXiv 2206.00364, algorithm 1."""
    for sigma, following in pairwise(sigmas):
        x = yield from heun_step(x, sigma, following)
    return x


def restart(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """Heun's steps that go back up to more noise and down again (Xu et al., arXiv 2306.14878)."""
    last = sigmas[0]
    for sigma, following in restart_levels(sigmas):
        if sigma > last:
            x = x + draw(last, sigma) * (sigma**2 - last**2) ** 0.5
        x = yield from heun_step(x, sigma, following)
        last = following
    return x


def restart_levels(sigmas: Sequence[float]) -> Iterator[tuple[float, float]]:
    """(σ, the one that follows) of each step: from 20 steps on one restart of 9, from 36 on two of a quarter each, as
    the host has them; the rest by Karras."""
    steps = len(sigmas) - 1
    length, times = (steps // 4, 2) if steps >= 36 else (9, 1) if steps >= 20 else (0, 0)
    if not times:
        yield from pairwise(sigmas)
        return
    sigmas = karras_between(steps - length * times, sigmas[-2], sigmas[0])
    low, high = (min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - place)) for place in (RESTART_AT, RESTART_FROM))
    for i, pair in enumerate(pairwise(sigmas), 1):
        yield pair
        if i == low and high < low:
            for _ in range(times):
                yield from pairwise(karras_between(length + 1, sigmas[low], sigmas[high])[:-1])


def dpm2(x: Tensor, sigmas: Sequence[float]) -> Steps:
    """The midpoint method in log σ (DPM-Solver-2: Lu et al., arXiv 2206.00927, algorithm 1)."""
    for sigma, following in pairwise(sigmas):
        x = yield from _dpm2_step(x, sigma, following)
    return x


def dpm2_ancestral(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """DPM-Solver-2 to below the next σ, and noise up to it."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following)
        x = yield from _dpm2_step(x, sigma, down)
        if following > 0:
            x = x + draw(sigma, following) * up
    return x


def _dpm2_step(x: Tensor, sigma: float, following: float) -> Steps:
    slope = (x - (yield x, sigma)) / sigma
    if following == 0:
        return x - slope * sigma
    middle = (sigma * following) ** 0.5
    between = x + slope * (middle - sigma)
    denoised = yield between, middle
    return x + (between - denoised) * ((following - sigma) / middle)


def lms(x: Tensor, sigmas: Sequence[float]) -> Steps:
    """The linear multistep method of Adams and Bashforth with steps that differ (Hairer et al., Solving Ordinary
    Differential Equations I, III.5)."""
    slopes: list[Tensor] = []
    for i in range(len(sigmas) - 1):
        denoised = yield x, sigmas[i]
        slopes = [(x - denoised) / sigmas[i], *slopes][:LMS_ORDER]
        places = [sigmas[i - k] for k in range(len(slopes))]
        for slope, weight in zip(slopes, _lagrange_integrals(places, sigmas[i], sigmas[i + 1])):
            x = x + slope * weight
    return x


def _lagrange_integrals(places: Sequence[float], start: float, end: float) -> list[float]:
    """∫ from start to end of each polynomial that is 1 at one of the places and 0 at the others."""
    import numpy as np  # here: what runs with torch alone takes the loop and the other samplers

    found = []
    for own in places:
        others = [place for place in places if place != own]
        whole = np.polynomial.Polynomial.fromroots(others).integ() if others else np.polynomial.Polynomial([0, 1])
        found.append(float((whole(end) - whole(start)) / np.prod([own - other for other in others])))
    return found


def lcm(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """Multistep consistency sampling (Luo et al., arXiv 2310.04378, algorithm 3): each x₀ with fresh noise."""
    for sigma, following in pairwise(sigmas):
        x = yield x, sigma
        if following > 0:
            x = x + draw(sigma, following) * following
    return x
