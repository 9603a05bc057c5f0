"""What counterfactual runs say of each LoRA: how much, when and where it changed the picture.

Runs are given by sets of LoRAs: index s of the first dimension is the set whose bits are those of s, 0 none, the last
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..colour import distances
from .shapley import exact_shares

PHASES = ("first", "middle", "last")


class Curves(NamedTuple):
    """Distances of latents per step, (LoRAs, steps + 1): each LoRA alone from none, and all from all but it."""

    alone: Tensor
    left_out: Tensor


def latent_curves(trajectories: Tensor) -> Curves:
    """trajectories (2ⁿ, steps + 1, c, h, w) → ‖z_t({k}) − z_t(∅)‖₂ and ‖z_t(N) − z_t(N∖k)‖₂."""
    count = _count(trajectories)
    every = len(trajectories) - 1

    def apart(first: int, second: int) -> Tensor:
        return (trajectories[first].double() - trajectories[second].double()).flatten(1).norm(dim=1)

    return Curves(torch.stack([apart(1 << k, 0) for k in range(count)]),
                  torch.stack([apart(every, every ^ 1 << k) for k in range(count)]))


def bends(trajectories: Tensor) -> Tensor:
    """trajectories (2ⁿ, steps + 1, c, h, w) → how far each step moves z({k}) − z(∅): (n, steps). Unlike the curves it
    tells a LoRA that still works on the picture from one that has only moved it early on."""
    apart = torch.stack([trajectories[1 << k] - trajectories[0] for k in range(_count(trajectories))]).double()
    return apart.diff(dim=1).flatten(2).norm(dim=2)


def when(bends: Tensor) -> str:
    """When most of a LoRA's bends (steps,) are, in words: before or after the step that has three quarters of them on
    one side, where that is well off the middle; else throughout."""
    total = bends.sum()
    if total <= 0:
        return "at no step"
    reached, steps = bends.cumsum(0) / total, len(bends)
    early = int((reached < 0.75 - 1e-9).sum()) + 1  # steps until three quarters are done
    late = int((reached <= 0.25 + 1e-9).sum())  # steps in which no more than a quarter is
    if early <= 0.6 * steps:
        return f"mostly before step {early + 1}"
    return f"mostly after step {late}" if late >= 0.4 * steps else "throughout"


def shares_of_change(shapley: Tensor) -> Tensor:
    """Shapley shares (n, …), which sum to the whole change D → the part of D that each makes, ⟨φ_k, D⟩ / ‖D‖²: (n,),
    with sum 1. Below 0: it works against the others. All 0 where nothing changed."""
    parts = shapley.double().flatten(1)
    whole = parts.sum(0)
    size = whole.square().sum()
    return parts @ whole / size if size > 0 else parts.new_zeros(len(parts))


def shares_by_phase(trajectories: Tensor) -> Tensor:
    """trajectories (2ⁿ, steps + 1, c, h, w) → (phases, n): shares of how much the LoRAs bent the path in each third of
    the steps, D = Δz(N) − Δz(∅) over the phase."""
    steps = trajectories.shape[1] - 1
    edges = [round(steps * i / len(PHASES)) for i in range(len(PHASES) + 1)]
    return torch.stack([shares_of_change(exact_shares(trajectories[:, end] - trajectories[:, start]))
                        for start, end in zip(edges, edges[1:])])


def heatmaps(pictures: np.ndarray) -> Tensor:
    """8-bit pictures (2ⁿ, h, w, 3) → ΔE*ab of each LoRA alone against none, (n, h, w)."""
    return torch.stack([torch.from_numpy(distances(pictures[1 << k], pictures[0])) for k in range(_count(pictures))])


def mass_within(heatmap: Tensor, box: tuple[float, float, float, float]) -> float:
    """How much of a heatmap (h, w) lies in a box x0 y0 x1 y1 of pixels; 0 where it is empty."""
    x0, y0, x1, y1 = box
    ys, xs = torch.meshgrid(torch.arange(heatmap.shape[0]) + 0.5, torch.arange(heatmap.shape[1]) + 0.5, indexing="ij")
    inside = (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)
    total = heatmap.sum()
    return float((heatmap * inside).sum() / total) if total > 0 else 0.0


def evenness(heatmap: Tensor) -> float:
    """How evenly a heatmap (h, w) covers the picture: 1 the same everywhere, 0 all in one pixel; the exponential of its
    entropy as a share of the pixels (Hill number of order 1)."""
    shares = (heatmap.double() / heatmap.sum()).flatten() if heatmap.sum() > 0 else heatmap.new_zeros(1).double()
    entropy = float(-torch.xlogy(shares, shares).sum())
    return (np.exp(entropy) - 1) / max(heatmap.numel() - 1, 1)


def where(heatmap: Tensor) -> str:
    """Where most of a heatmap (h, w) is, in words: all over, the thirds of the picture that hold more than half of it
    (upper, lower, left, right, upper left, …, in the middle), or in several places."""
    if heatmap.sum() <= 0:
        return "nowhere"
    if evenness(heatmap) >= 0.6:
        return "all over"
    vertical = _heaviest(heatmap.sum(1), ("upper", "middle", "lower"))
    horizontal = _heaviest(heatmap.sum(0), ("left", "middle", "right"))
    if vertical == horizontal:
        return "in the middle" if vertical else "in several places"
    return " ".join(word for word in (vertical, horizontal) if word and word != "middle") or "in several places"


def _heaviest(profile: Tensor, names: tuple[str, ...]) -> str:
    """The name of the third of a profile that holds more than half of it; empty where none does."""
    shares = [float(part.sum() / profile.sum()) for part in torch.tensor_split(profile, len(names))]
    return next((name for name, share in zip(names, shares) if share > 0.5), "")


def _count(values: Sequence) -> int:
    count = (len(values) - 1).bit_length()
    if len(values) != 1 << count:
        raise ValueError(f"expected a run of every set, 2ⁿ of them, got {len(values)}")
    return count
