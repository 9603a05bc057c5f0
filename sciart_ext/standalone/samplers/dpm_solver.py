"""DPM-Solver (Lu et al., arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095) for variance exploding latents.

There λ = −log σ, and a step from σ to σ' is h = log(σ / σ') long. Arguments and results: `ode`'s. Samplers with SDE in
their name solve the reverse stochastic equation; their draws are the increments of its Brownian motion.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .noise import Draw
from .ode import Steps, ancestral

H_INIT, RELATIVE, ABSOLUTE, ACCEPTED, EXPONENT = 0.05, 0.05, 0.0078, 0.81, 1 / 1.5
"""of the adaptive sampler: first step in λ; tolerances; the least factor of the step's length with which it is taken;
the power of the inverse error that the factor is"""
DONE = 1e-5


def dpmpp_2m(x: Tensor, sigmas: Sequence[float]) -> Steps:
    """DPM-Solver++(2M), algorithm 2; the first step and the one to 0 of order 1."""
    before = length_before = None
    for sigma, following in pairwise(sigmas):
        denoised = yield x, sigma
        ratio = following / sigma
        length = -math.log(ratio) if ratio else math.inf
        ahead = denoised
        if before is not None and ratio:
            ahead = denoised + (denoised - before) * (length / length_before / 2)
        x = x * ratio + ahead * (1 - ratio)
        before, length_before = denoised, length
    return x


def dpmpp_2s_ancestral(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """DPM-Solver++(2S), algorithm 1, to below the next σ, and noise up to it."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following)
        denoised = yield x, sigma
        if down > 0:
            middle = (sigma * down) ** 0.5
            denoised = yield _towards(x, denoised, middle / sigma), middle
        x = _towards(x, denoised, down / sigma)
        if following > 0:
            x = x + draw(sigma, following) * up
    return x


def dpmpp_sde(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """DPM-Solver++(2S) for the stochastic equation: an ancestral step to the middle in λ, whose x₀ the whole step
    takes. The σ at which it looks at the Brownian motion are, as the host's, those of λ in single precision."""
    for sigma, following in pairwise(sigmas):
        denoised = yield x, sigma
        if following == 0:
            return denoised
        start, end = (-torch.tensor(one).log() for one in (sigma, following))
        here, middle, there = (float((-one).exp()) for one in (start, start + (end - start) / 2, end))
        down, up = ancestral(sigma, middle)
        denoised = yield _towards(x, denoised, down / sigma) + draw(here, middle) * up, middle
        down, up = ancestral(sigma, following)
        x = _towards(x, denoised, down / sigma) + draw(here, there) * up
    return x


def dpmpp_2m_sde(x: Tensor, sigmas: Sequence[float], draw: Draw, heun: bool = False) -> Steps:
    """DPM-Solver++(2M) for the stochastic equation (section 5); heun: the change of x₀ as Heun's method takes it, not
    the midpoint's."""
    before = length_before = None
    for sigma, following in pairwise(sigmas):
        denoised = yield x, sigma
        if following == 0:
            return denoised
        length = math.log(sigma / following)
        left = math.exp(-2 * length)
        x = _towards(x, denoised, left)
        if before is not None:
            change = 1 - (1 - left) / (2 * length) if heun else (1 - left) / 2
            x = x + (denoised - before) * (change * length / length_before)
        x = x + draw(sigma, following) * (following * (1 - left) ** 0.5)
        before, length_before = denoised, length
    return x


def dpmpp_3m_sde(x: Tensor, sigmas: Sequence[float], draw: Draw) -> Steps:
    """SDE-DPM-Solver++ of order 3: the first and second derivative of x₀ by λ from the two x₀ before."""
    before: list[tuple[Tensor, float]] = []
    for sigma, following in pairwise(sigmas):
        denoised = yield x, sigma
        if following == 0:
            return denoised
        length = math.log(sigma / following)
        twice = 2 * length
        phi_2 = math.expm1(-twice) / twice + 1
        phi_3 = phi_2 / twice - 0.5
        x = _towards(x, denoised, math.exp(-twice))
        if before:
            (last, step), *earlier = before
            first = near = (denoised - last) * (length / step)
            if earlier:
                (other, step_before), = earlier
                second = (near - (last - other) * (length / step_before)) * (length / (step + step_before))
                first = near + second * (step / length)
                x = x - second * phi_3
            x = x + first * phi_2
        x = x + draw(sigma, following) * (following * (-math.expm1(-twice)) ** 0.5)
        before = [(denoised, length), *before][:2]
    return x


def dpm_fast(x: Tensor, largest: float, least: float, evaluations: int, draw: Draw) -> Steps:
    """DPM-Solver-fast (section 3.4) with so many evaluations: steps even in λ, of order 3 but the last; ancestral."""
    count, rest = evaluations // 3 + 1, evaluations % 3
    orders = [3] * (count - 1) + [rest] if rest else [3] * (count - 2) + [2, 1]
    places = [math.log(largest) + (math.log(least) - math.log(largest)) * i / count for i in range(count + 1)]
    for order, (sigma, following) in zip(orders, pairwise(map(math.exp, places))):
        down, up = _down(sigma, following, least)
        x = (yield from _solved(x, sigma, down, order))[-1]
        x = x + draw(sigma, following) * up
    return x


def dpm_adaptive(x: Tensor, largest: float, least: float, draw: Draw) -> Steps:
    """DPM-Solver-23 with steps as long as the difference of its orders allows (appendix C); ancestral."""
    sigma, length, before = largest, H_INIT, x
    while math.log(sigma / least) > DONE:
        following = max(least, sigma * math.exp(-length))
        down, up = _down(sigma, following, least)
        low, high = yield from _solved(x, sigma, down, 3)
        allowed = torch.maximum(low.abs(), before.abs()).mul(RELATIVE).clamp_min(ABSOLUTE)
        error = float(((low - high) / allowed).square().mean().sqrt())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** EXPONENT - 1)
        if factor >= ACCEPTED:
            before, x = low, high + draw(sigma, following) * up
            sigma = following
        length *= factor
    return x


def _towards(x: Tensor, denoised: Tensor, left: float) -> Tensor:
    """The exact solution while x₀ stays: so much is left of the noise."""
    return x * left + denoised * (1 - left)


def _down(sigma: float, following: float, least: float) -> tuple[float, float]:
    """An ancestral step that never goes below the least σ."""
    down = max(ancestral(sigma, following)[0], least)
    return down, max(following**2 - down**2, 0.0) ** 0.5


def _noise_in(x: Tensor, sigma: float) -> Steps:
    denoised = yield x, sigma
    return (x - denoised) / sigma


def _solved(x: Tensor, sigma: float, following: float, order: int,
            ) -> Generator[tuple[Tensor, float], Tensor, list[Tensor]]:
    """One step by DPM-Solver of order 1, 2 or 3 (algorithms 1 and 2); of order 3 after that of order 2 with the same
    evaluations."""
    h = math.log(sigma / following)
    grown = following * math.expm1(h)
    noise = yield from _noise_in(x, sigma)
    plain = x - noise * grown
    if order == 1:
        return [plain]
    r1, r2 = (1 / 3, 2 / 3) if order == 3 else (1 / 2, 1)
    first = sigma * math.exp(-r1 * h)
    change = (yield from _noise_in(x - noise * (first * math.expm1(r1 * h)), first)) - noise
    second_order = plain - change * (grown / (2 * r1))
    if order == 2:
        return [second_order]
    second = sigma * math.exp(-r2 * h)
    phi = math.expm1(r2 * h) / (r2 * h) - 1
    moved = x - noise * (second * math.expm1(r2 * h)) - change * (second * r2 / r1 * phi)
    change = (yield from _noise_in(moved, second)) - noise
    return [second_order, plain - change * (following / r2 * (math.expm1(h) / h - 1))]
