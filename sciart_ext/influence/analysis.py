"""The influence of each LoRA on one picture, from counterfactual runs: numbers, maps and a sentence for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..report.colour import distances, lab
from .measures import bends, curve, phases_of, shares_of_change, when, where
from .runs import Run
from .shapley import exact_shares, sampled_shares
from .subsets import Question


@dataclass(frozen=True)
class Effects:
    """What each of n LoRAs changes on one background.

    curves: (n, steps + 1) distances of the latents; bends: (n, steps) how far each step moves them apart; heat: (n, h,
    w) ΔE of the pictures.
    """

    curves: Tensor
    bends: Tensor
    heat: Tensor


@dataclass(frozen=True)
class Shares:
    """Shapley shares of n LoRAs: parts of the picture's whole change in CIELAB, which sum to 1.

    parts: (n,); errors: (n,) half widths of their intervals (95 % or more), 0 where exact; phases: (3, n) parts of how
    the latents' path was bent in each third of the steps; maps: (n, h, w) ΔE of each one's share; residual: largest
    difference, in ΔE, between the sum of the shares and the change, over all pixels; orders: from how many, None where
    exact.
    """

    parts: Tensor
    errors: Tensor
    phases: Tensor
    maps: Tensor
    residual: float
    orders: int | None


@dataclass(frozen=True)
class Influence:
    """Of n LoRAs; alone: each against none; left_out: all against all but it; None where it was not asked."""

    names: tuple[str, ...]
    alone: Effects | None
    left_out: Effects | None
    shares: Shares | None

    def sentences(self, words: Mapping[str, Tensor] | None = None) -> list[str]:
        """One for each LoRA: how much of the change, when, where; words: attention (h, w) to words of the prompt."""
        effects = self.alone or self.left_out
        said = []
        for k, name in enumerate(self.names):
            if self.shares is not None:
                error = f" ± {100 * float(self.shares.errors[k]):.0f}" if self.shares.orders else ""
                much = f"{name}: {100 * float(self.shares.parts[k]):.0f}{error} % of the change"
            else:
                much = f"{name if self.alone else f'without {name}'}: ΔE {float(effects.heat[k].mean()):.1f} on average"
            said.append(f"{much}, {when(effects.bends[k])}, {where(effects.heat[k], words)}")
        return said


def analyse(names: Sequence[str], question: Question, runs: Mapping[int, Run]) -> Influence:
    """From the runs of the question's sets. Raises ValueError where runs are missing."""
    missing = [one for one in question.sets if one not in runs]
    if missing or question.count != len(names):
        raise ValueError(f"{question.count} LoRAs, {len(names)} names; no runs of the sets {missing}")
    every, single = (1 << len(names)) - 1, [1 << k for k in range(len(names))]
    alone = None if question.subsets == "left-out" else _effects(runs, [(one, 0) for one in single])
    left_out = None if question.subsets == "solo" else _effects(runs, [(every, every ^ one) for one in single])
    shares = _shares(question, runs) if question.subsets == "all" else None
    return Influence(tuple(names), alone, left_out, shares)


def _effects(runs: Mapping[int, Run], pairs: Sequence[tuple[int, int]]) -> Effects:
    """Of each pair (with, without)."""
    moved = [runs[a].trajectory.double() - runs[b].trajectory.double() for a, b in pairs]
    heat = [torch.from_numpy(distances(runs[a].picture, runs[b].picture)) for a, b in pairs]
    return Effects(torch.stack([curve(one) for one in moved]), torch.stack([bends(one) for one in moved]),
                   torch.stack(heat))


def _shares(question: Question, runs: Mapping[int, Run]) -> Shares:
    every = (1 << question.count) - 1
    colours = {one: torch.from_numpy(lab(runs[one].picture)) for one in question.sets}
    change = colours[every] - colours[0]
    maps = _shapley(question, colours)[0]
    parts, errors = _shapley(question, {one: shares_of_change(colour - colours[0], change)
                                        for one, colour in colours.items()})
    moved = {one: phases_of(runs[one].trajectory) for one in question.sets}
    whole = moved[every] - moved[0]
    phases = [_shapley(question, {one: shares_of_change((found - moved[0])[phase], whole[phase])
                                  for one, found in moved.items()})[0] for phase in range(len(whole))]
    residual = (maps.sum(0) - change).norm(dim=-1).max()
    return Shares(parts, errors, torch.stack(phases), maps.norm(dim=-1), float(residual),
                  len(question.orders) if question.orders else None)


def _shapley(question: Question, values: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Shares (n, …) and their errors, of a value of each set."""
    if question.orders:
        found = sampled_shares(values.__getitem__, question.orders)
        return found.shares, found.errors
    shares = exact_shares(torch.stack([values[one] for one in range(len(values))]))
    return shares, shares.new_zeros(()).expand_as(shares)
