"""Samplers of variance preserving latents at the model's own times: each yields (x, time) and is sent ε.

Arguments: x, unit noise (images, c, h, w); times, ascending, of which the first is where the latents end, with what
noise is left there, as in the host; alphas, cumulative ᾱ of each time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from torch import Tensor

Steps = Generator[tuple[Tensor, float], Tensor, Tensor]
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def ddim(x: Tensor, times: Sequence[int], alphas: Sequence[float]) -> Steps:
    """DDIM without noise (Song et al., arXiv 2010.02502, equation 12 with σ = 0)."""
    for time, alpha, following in _pairs(times, alphas):
        noise = yield x, time
        x = _moved(x, noise, noise, alpha, following)
    return x


def ddim_cfgpp(x: Tensor, times: Sequence[int], alphas: Sequence[float],
               ) -> Generator[tuple[Tensor, float], tuple[Tensor, Tensor], Tensor]:
    """DDIM that goes on from the noise without prompt (CFG++: Chung et al., arXiv 2406.08070, algorithm 2)."""
    for time, alpha, following in _pairs(times, alphas):
        noise, without = yield x, time
        x = _moved(x, noise, without, alpha, following)
    return x


def plms(x: Tensor, times: Sequence[int], alphas: Sequence[float]) -> Steps:
    """Pseudo linear multistep (Liu et al., arXiv 2202.09778, equation 12), its first step by a mean with one more
    evaluation."""
    noises: list[Tensor] = []
    for step, (time, alpha, following) in enumerate(_pairs(times, alphas)):
        noises = [(yield x, time), *noises][:4]
        noise = sum(one * weight for one, weight in zip(noises, ADAMS_BASHFORTH[len(noises) - 1]))
        if not step:
            there = yield _moved(x, noise, noise, alpha, following), float(times[max(len(times) - 2, 0)])
            noise = (noise + there) / 2
        x = _moved(x, noise, noise, alpha, following)
    return x


def _pairs(times: Sequence[int], alphas: Sequence[float]) -> list[tuple[float, float, float]]:
    """(time, its ᾱ, the ᾱ of the next) of each step, from the last time down."""
    return [(float(time), float(alphas[time]), float(alphas[following]))
            for following, time in zip(times, times[1:])][::-1]


def _moved(x: Tensor, noise: Tensor, direction: Tensor, alpha: float, following: float) -> Tensor:
    clean = (x - noise * (1 - alpha) ** 0.5) / alpha**0.5
    return clean * following**0.5 + direction * (1 - following) ** 0.5
