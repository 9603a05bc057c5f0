"""What counterfactual runs say of a LoRA: how much, when and where it changed the picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

PHASES = ("first", "middle", "last")


def curve(moved: Tensor) -> Tensor:
    """Differences of latents (steps + 1, c, h, w) → their norms ‖z_t(with) − z_t(without)‖₂, (steps + 1,)."""
    return moved.flatten(1).norm(dim=1)


def bends(moved: Tensor) -> Tensor:
    """Differences of latents (steps + 1, c, h, w) → how far each step moves them, (steps,). Unlike the curve it tells a
    LoRA that still works on the picture from one that has only moved it early on."""
    return moved.diff(dim=0).flatten(1).norm(dim=1)


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


def shares_of_change(moved: Tensor, whole: Tensor) -> Tensor:
    """The part of a whole change D that a change makes, ⟨moved, D⟩ / ‖D‖²: a number, 1 for D itself, below 0 for what
    goes against it; 0 where nothing changed. Linear, so that Shapley shares of it are those of the change's."""
    size = whole.double().square().sum()
    return (moved.double() * whole.double()).sum() / size if size > 0 else size.new_zeros(())


def phases_of(trajectory: Tensor) -> Tensor:
    """Latents (steps + 1, c, h, w) → how far they went in each third of the steps, (phases, c, h, w), float64."""
    steps = len(trajectory) - 1
    edges = [round(steps * i / len(PHASES)) for i in range(len(PHASES) + 1)]
    return trajectory[edges].double().diff(dim=0)


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


def where(heatmap: Tensor, words: Mapping[str, Tensor] | None = None) -> str:
    """Where most of a heatmap (h, w) is, in words: all over; on what a word of the prompt names; the thirds of the
    picture that hold more than half of it (upper, lower, left, right, upper left, …, in the middle); or in several
    places. words: attention (h, w) to each."""
    if heatmap.sum() <= 0:
        return "nowhere"
    if evenness(heatmap) >= 0.6:
        return "all over"
    on = {word: _share_on(heatmap, attention) for word, attention in (words or {}).items()}
    best = max(on, key=on.__getitem__, default=None)
    if best is not None and on[best] > 0.5:
        return f"on the {best}"
    vertical = _heaviest(heatmap.sum(1), ("upper", "middle", "lower"))
    horizontal = _heaviest(heatmap.sum(0), ("left", "middle", "right"))
    if vertical == horizontal:
        return "in the middle" if vertical else "in several places"
    return " ".join(word for word in (vertical, horizontal) if word and word != "middle") or "in several places"


def _share_on(heatmap: Tensor, attention: Tensor) -> float:
    """How much of a heatmap lies where the attention is above half of its range; 0 where that is half of the picture:
    such a word has no place."""
    above = attention > (attention.min() + attention.max()) / 2
    return float(heatmap[above].sum() / heatmap.sum()) if above.double().mean() < 0.5 else 0.0


def _heaviest(profile: Tensor, names: tuple[str, ...]) -> str:
    """The name of the third of a profile that holds more than half of it; empty where none does."""
    shares = [float(part.sum() / profile.sum()) for part in torch.tensor_split(profile, len(names))]
    return next((name for name, share in zip(names, shares) if share > 0.5), "")
