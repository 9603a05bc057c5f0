"""The contrastive loss between attention maps (CLoRA, arXiv 2403.19776, equation 3; InfoNCE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NONE = -1e4
"""a similarity whose exponential is 0; infinity would make gradients NaN"""


def contrastive_loss(maps: Tensor, groups: Tensor, temperature: float = 0.5) -> Tensor:
    """How much maps of different subjects resemble each other, and maps of one subject do not.

    maps: (images, n, pixels), not negative; groups: (n,), which subject each map belongs to. Per image (images,) the
    mean over all pairs (j, j+) of one group of

        −log exp(sim(j, j+)/τ) / (exp(sim(j, j+)/τ) + Σ exp(sim(j, j−)/τ))

    with j− all maps of other groups, sim the cosine of the maps less their minimum. A map without contrast is alike to
    none; with one group only there is nothing to tell apart and the loss is 0. Raises ValueError where no group has two
    maps.
    """
    same = groups[:, None] == groups[None]
    positive = same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    pairs = int(positive.sum())
    if not pairs:
        raise ValueError("no subject has two maps, so there are no positive pairs")
    similarity = cosines(maps) / temperature
    same, positive = same.to(similarity.device), positive.to(similarity.device)
    others = similarity.masked_fill(same, NONE).logsumexp(-1, keepdim=True)
    losses = F.softplus(others - similarity)  # −log e^p / (e^p + Σ e^n), p the positive pair
    return (losses * positive).sum((-2, -1)) / pairs


def cosines(maps: Tensor) -> Tensor:
    """(…, n, pixels) → (…, n, n): cosines of the maps less their minimum; 0 for a map without contrast."""
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
    contrast = maps - maps.amin(-1, keepdim=True)
    unit = F.normalize(contrast, dim=-1, eps=1e-8)
    return unit @ unit.transpose(-1, -2)
