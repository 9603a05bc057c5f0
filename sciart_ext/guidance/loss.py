"""The contrastive loss between attention maps (CLoRA, arXiv 2403.19776, equation 3; InfoNCE)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..mixer.gates import sent

NONE = -1e4
"""a similarity whose exponential is 0; infinity would make gradients NaN"""


def contrastive_loss(maps: Tensor, groups: Tensor, temperature: float = 0.5) -> Tensor:
    """How much maps of different subjects resemble each other, and maps of one subject do not.

    maps: (images, n, pixels), not negative; groups: (n,), which subject each map belongs to, on the CPU. Per image
    (images,) the mean over all pairs (j, j+) of one group of

        −log exp(sim(j, j+)/τ) / (exp(sim(j, j+)/τ) + Σ exp(sim(j, j−)/τ))

    with j− all maps of other groups, sim the cosine of the maps less their minimum. A map without contrast is alike to
    none; with one group only there is nothing to tell apart and the loss is 0. Raises ValueError where no group has two
    maps.
    """
    same, positive, pairs = _pairs(tuple(groups.tolist()), maps.device)
    similarity = cosines(maps) / temperature
    others = similarity.masked_fill(same, NONE).logsumexp(-1, keepdim=True)
    losses = F.softplus(others - similarity)  # −log e^p / (e^p + Σ e^n), p the positive pair
    return (losses * positive).sum((-2, -1)) / pairs


@functools.lru_cache(maxsize=8)
def _pairs(groups: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, int]:
    """bool (n, n) on the device: maps of one group, and those of them that are two; and how many these are."""
    numbers = torch.tensor(groups)
    same = numbers[:, None] == numbers[None]
    positive = same & ~torch.eye(len(groups), dtype=torch.bool)
    pairs = int(positive.sum())
    if not pairs:
        raise ValueError("no subject has two maps, so there are no positive pairs")
    return sent(same, device), sent(positive, device), pairs


def cosines(maps: Tensor) -> Tensor:
    """(…, n, pixels) → (…, n, n): cosines of the maps less their minimum; 0 for a map without contrast."""
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
    contrast = maps - maps.amin(-1, keepdim=True)
    unit = F.normalize(contrast, dim=-1, eps=1e-8)
    return unit @ unit.transpose(-1, -2)
