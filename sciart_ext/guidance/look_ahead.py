"""Where a prompt's things will be: a coarse run of the base prompt alone, which is then thrown away."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

EVALUATIONS = 10
"""of a run from pure noise to the end"""
FROM, UNTIL = 0.4, 0.7
"""progress between which attention is looked at: before it tells little, after it only gets finer"""


def attention_ahead(latents: Tensor, start: int, alphas: Tensor, denoised: Callable[[Tensor, int, float], Tensor],
            attended: Callable[[Tensor, int, float], Tensor], recorded: Callable[[], Tensor]) -> Tensor:
    """The mean of the attention maps (images, h, w, tokens) on the way of a coarse DDIM run (arXiv 2010.02502, equation
    12, η = 0).

    latents (images, c, h, w): variance preserving, at the training time `start`; alphas: cumulative, by training time,
    on the CPU.
    denoised(latents, time, progress): latents without noise, after classifier-free guidance; recorded(): the maps of
    that; attended(latents, time, progress): the maps alone, of the last evaluation, whose latents nobody needs.
    """
    count = max(math.ceil(EVALUATIONS * (start + 1) / len(alphas)), 2)
    times = torch.linspace(start, 0, count + 1).round().long().tolist()[:-1]
    last = int(UNTIL * (count - 1))
    seen = []
    for i in range(last):
        found = denoised(latents, times[i], i / (count - 1))
        if i / (count - 1) >= FROM:
            seen.append(recorded())
        alpha, following = float(alphas[times[i]]), float(alphas[times[i + 1]])
        noise = (latents - math.sqrt(alpha) * found) / math.sqrt(1 - alpha)
        latents = math.sqrt(following) * found + math.sqrt(1 - following) * noise
    return torch.stack([*seen, attended(latents, times[last], last / (count - 1))]).mean(0)
