"""The contrastive loss between attention maps (CLoRA, arXiv 2403.19776, equation 3; InfoNCE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..mixer.gates import sent

NONE = -1e4
"""a similarity whose exponential is 0; infinity would make gradients NaN"""


class Pairs(NamedTuple):
    """Of maps that belong to subjects: bool (n, n) which of them are of one, and which of these are two maps, on the
    maps' device; and how many these are."""

    same: Tensor
    positive: Tensor
    count: int


def contrastive_loss(maps: Tensor, pairs: Pairs, temperature: float = 0.5) -> Tensor:
    """How much maps of different subjects resemble each other, and maps of one subject do not.

    maps: (images, n, pixels), not negative. Per image (images,) the mean over all pairs (j, j+) of one group of

        −log exp(sim(j, j+)/τ) / (exp(sim(j, j+)/τ) + Σ exp(sim(j, j−)/τ))

    with j− all maps of other groups, sim the cosine of the maps less their minimum. A map without contrast is alike to
    none; with one group only there is nothing to tell apart and the loss is 0.
    """
    similarity = cosines(maps) / temperature
    others = similarity.masked_fill(pairs.same, NONE).logsumexp(-1, keepdim=True)
    losses = F.softplus(others - similarity)  # −log e^p / (e^p + Σ e^n), p the positive pair
    return (losses * pairs.positive).sum((-2, -1)) / pairs.count


def pairs_of(groups: Sequence[int], device: torch.device) -> Pairs:
    """groups: which subject each map belongs to. Raises ValueError where no group has two maps."""
    numbers = torch.tensor(groups)
    same = numbers[:, None] == numbers[None]
    positive = same & ~torch.eye(len(groups), dtype=torch.bool)
    count = int(positive.sum())
    if not count:
        raise ValueError("no subject has two maps, so there are no positive pairs")
    return Pairs(sent(same, device), sent(positive, device), count)


def cosines(maps: Tensor) -> Tensor:
    """(…, n, pixels) → (…, n, n): cosines of the maps less their minimum; 0 for a map without contrast."""
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
    contrast = maps - maps.amin(-1, keepdim=True)
    unit = F.normalize(contrast, dim=-1, eps=1e-8)
    return unit @ unit.transpose(-1, -2)
