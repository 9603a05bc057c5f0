"""The influence of each LoRA on one picture, from counterfactual runs: numbers, maps and a sentence for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..colour import lab
from .measures import (
    Curves,
    bends,
    heatmaps,
    latent_curves,
    shares_by_phase,
    shares_of_change,
    when,
    where,
)
from .shapley import exact_shares


@dataclass(frozen=True)
class Influence:
    """Of n LoRAs, exact: from a run of every set of them.

    curves: of the latents; bends: (n, steps) of their path at each step; shares: (n,) parts of the picture's whole
    change in CIELAB, sum 1; residual: largest difference, in ΔE, between the sum of the Shapley shares and the change,
    over all pixels; phases: (3, n) parts of how the latents' path was bent in each third of the steps; heat: (n, h, w)
    ΔE of each alone against none.
    """

    names: tuple[str, ...]
    curves: Curves
    bends: Tensor
    shares: Tensor
    residual: float
    phases: Tensor
    heat: Tensor

    def sentences(self) -> list[str]:
        """One for each LoRA: how much of the change, when, where."""
        return [f"{name}: {100 * float(share):.0f} % of the change, {when(steps)}, {where(heat)}"
                for name, share, steps, heat in zip(self.names, self.shares, self.bends, self.heat)]


def analyse(names: Sequence[str], trajectories: Tensor, pictures: np.ndarray) -> Influence:
    """trajectories (2ⁿ, steps + 1, c, h, w) and 8-bit pictures (2ⁿ, h, w, 3) of every set of these n LoRAs."""
    if len(pictures) != 1 << len(names) or len(trajectories) != len(pictures):
        raise ValueError(f"{len(names)} LoRAs need {1 << len(names)} runs, got {len(trajectories)} and {len(pictures)}")
    colours = torch.from_numpy(lab(pictures))
    shapley = exact_shares(colours)
    residual = (shapley.sum(0) - (colours[-1] - colours[0])).norm(dim=-1).max()
    return Influence(tuple(names), latent_curves(trajectories), bends(trajectories),
                     shares_of_change(shapley), float(residual), shares_by_phase(trajectories), heatmaps(pictures))


def of_every_set(runs: Mapping[int, object], count: int) -> tuple[Tensor, np.ndarray]:
    """(trajectories, pictures) of the runs of all sets of so many LoRAs, in their order."""
    ordered = [runs[one] for one in range(1 << count)]
    return torch.stack([run.trajectory for run in ordered]), np.stack([run.picture for run in ordered])
