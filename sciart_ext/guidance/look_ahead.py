"""Where a prompt's things will be: a coarse run of the base prompt alone, which is then thrown away."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

EVALUATIONS = 10
"""of a run from pure noise to the end"""
FROM, TO = 0.4, 0.7
"""progress between which attention is looked at: before it tells little, after it only gets finer"""


def layouts(latents: Tensor, start: int, alphas: Tensor,
            predict: Callable[[Tensor, int, float], tuple[Tensor, Tensor]]) -> Tensor:
    """Mean of the attention maps on the way of a coarse DDIM run (arXiv 2010.02502, equation 12, η = 0).

    latents (images, c, h, w): variance preserving, at the training time `start`; alphas: cumulative, by training time,
    on the CPU.
    predict(latents, time, progress) → (denoised latents after classifier-free guidance, attention maps).
    """
    count = max(math.ceil(EVALUATIONS * (start + 1) / len(alphas)), 2)
    times = torch.linspace(start, 0, count + 1).round().long().tolist()[:-1]
    seen = []
    for i, time in enumerate(times):
        progress = i / (count - 1)
        if progress > TO and seen:
            break
        denoised, maps = predict(latents, time, progress)
        if progress >= FROM:
            seen.append(maps)
        if i + 1 < count:
            alpha, following = float(alphas[time]), float(alphas[times[i + 1]])
            noise = (latents - math.sqrt(alpha) * denoised) / math.sqrt(1 - alpha)
            latents = math.sqrt(following) * denoised + math.sqrt(1 - following) * noise
    return torch.stack(seen).mean(0)
