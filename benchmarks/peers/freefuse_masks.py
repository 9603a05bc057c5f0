"""FreeFuse's masks (arXiv 2510.23515, v2): which place of the picture is which subject's, from one attention block.

    s_k = n·A_k − Σ_{j≠k} A_j                     contrast of the cross-attention maps A
    C_k = the top 10 % of s_k                     core
    S_k(p) = softmax_p( mean_{c∈C_k} h_c·h_p / T )   h: the block's self-attention output
    owner(p) = argmax_k ( S_k(p) − b_k + v·V_k(p) − g·D_k(p) )
                                                     b raised where a subject has too much, until areas are even

V is what the eight places around claim, D the squared distance from the subject's centre: what the paper's formulas
do not have and the authors' public implementation for SDXL does, against holes. From it
are T, the rounds and their rates too; no code is taken over. There v and g are 3e-5 whatever S is; here they are shares
of the range of S.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CORE = 0.1
"""share of the places"""
TEMPERATURE = 1000.0
"""of SDXL; of Flux, whose hidden states are larger, 4000"""

@dataclass(frozen=True)
class Balance:
    """How places are shared out."""

    rounds: int = 15
    """in which b changes; 0: the plain argmax"""
    rate: float = 0.01
    """by what share of the range of S it does in the first"""
    decay: float = 0.95
    """what is left of that after each"""
    votes: float = 0.0
    """v, as a share of the range of S"""
    pull: float = 0.0
    """g, as a share of the range of S, for a distance of half the picture's side"""
    momentum: float = 0.2
    """how much of a claim stays from the round before"""


AS_PUBLISHED = Balance()
"""but for votes and pull, whose published sizes are of another scale"""


def freefuse_masks(attention: Tensor, hidden: Tensor, core: float = CORE, temperature: float = TEMPERATURE,
                   balance: Balance = AS_PUBLISHED) -> Tensor:
    """attention (subjects, h, w), hidden (h·w, channels) → bool masks (subjects, h, w): every place is one's."""
    similar = similarities(cores(contrasts(attention.flatten(1)), core), hidden, temperature)
    owner = balanced_argmax(similar.view(attention.shape), balance)
    order = torch.arange(len(attention), device=attention.device)
    return owner == order[:, None, None]


def contrasts(attention: Tensor) -> Tensor:
    """(subjects, places) → the same: s_k = n·A_k − Σ_{j≠k} A_j."""
    return (len(attention) + 1) * attention - attention.sum(0)


def cores(contrast: Tensor, share: float) -> Tensor:
    """(subjects, places) → the places (subjects, count) of each subject's largest contrast, one at least."""
    return contrast.topk(max(int(contrast.shape[1] * share), 1)).indices


def similarities(core: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    """core (subjects, count), hidden (places, channels) → S (subjects, places), float32, each row's sum is 1."""
    centres = hidden.float()[core].mean(1)
    return (centres @ hidden.float().T / temperature).softmax(1)


def balanced_argmax(values: Tensor, balance: Balance) -> Tensor:
    """values (subjects, h, w) → the subject of each place (h, w).

    Each round every subject with more than its even share of the places loses, and every one with less gains, a step
    all over. Without votes and pull it ends early once the areas are as even as they can be.
    """
    span = float(values.max() - values.min())
    bias, step = torch.zeros(len(values), 1, 1, dtype=values.dtype, device=values.device), balance.rate * span
    claims, shaped = _between(values, (1, 2)), values
    for _ in range(balance.rounds):
        area = torch.bincount((shaped - bias).argmax(0).flatten(), minlength=len(values))
        excess = area - area.sum() / len(values)
        if not (balance.votes or balance.pull) and bool((excess.abs() < 1).all()):
            break
        claims = balance.momentum * claims + (1 - balance.momentum) * _between(shaped - bias, (0,))
        bias = bias + step * excess.sign()[:, None, None]
        step *= balance.decay
        shaped = values + span * (balance.votes * _around(claims) - balance.pull * _far(claims))
    return (shaped - bias).argmax(0)


def _between(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """From 0, the least along these dimensions, to 1, the most."""
    low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
    return (values - low) / (high - low).clamp(min=1e-8)


def _around(claims: Tensor) -> Tensor:
    """(subjects, h, w) → the mean of the eight places around each; those outside of the picture claim nothing."""
    return (9 * F.avg_pool2d(claims, 3, 1, 1) - claims) / 8


def _far(claims: Tensor) -> Tensor:
    """(subjects, h, w) → the squared distance from the claims' centre, in halves of the picture's side."""
    height, width = claims.shape[1:]
    down = torch.linspace(-1, 1, height, device=claims.device).view(1, -1, 1)
    across = torch.linspace(-1, 1, width, device=claims.device).view(1, 1, -1)
    mass = claims.sum((1, 2), keepdim=True).clamp(min=1e-8)
    centre = [(claims * place).sum((1, 2), keepdim=True) / mass for place in (down, across)]
    return (down - centre[0]) ** 2 + (across - centre[1]) ** 2
