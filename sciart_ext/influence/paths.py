"""The ways of the latents under each set of LoRAs, in two dimensions: how they part from the way without LoRAs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

PERPLEXITY = 15.0


class Paths(NamedTuple):
    """points: of each set (steps + 1, 2), float64; told: the part of all squared distances from the origin that each
    axis shows; None where axes have no such meaning."""

    points: dict[int, Tensor]
    told: tuple[float, float] | None


def principal_paths(trajectories: Mapping[int, Tensor], origin: int) -> Paths:
    """Trajectories (steps + 1, c, h, w) of sets → their distances from the origin's at the same step, along the two
    directions that show most of them (PCA about the origin, which stays at 0, 0)."""
    moved = torch.stack([one.float() - trajectories[origin].float() for one in trajectories.values()])
    flat = moved.flatten(0, 1).flatten(1)
    gram = (flat @ flat.T).double()  # (points, points): far fewer than the latents' values
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares.clamp(min=0).flip(0)[:2], vectors.flip(1)[:, :2]
    points = (vectors * squares.sqrt()).unflatten(0, moved.shape[:2])
    total = gram.diagonal().sum()
    shown = squares / total if total > 0 else torch.zeros_like(squares)
    return Paths(dict(zip(trajectories, _turned(points))), (float(shown[0]), float(shown[1])))


def neighbour_paths(trajectories: Mapping[int, Tensor], seed: int = 0) -> Paths | None:
    """The same points so that neighbours stay neighbours (t-SNE, van der Maaten and Hinton 2008); None where
    scikit-learn, which is optional, is not installed."""
    if find_spec("sklearn") is None:
        return None
    from sklearn.manifold import TSNE

    every = torch.stack([one.float() for one in trajectories.values()])
    flat = every.flatten(0, 1).flatten(1).numpy()
    found = TSNE(2, perplexity=min(PERPLEXITY, (len(flat) - 1) / 3), random_state=seed, init="pca").fit_transform(flat)
    points = torch.from_numpy(found).double().unflatten(0, every.shape[:2])
    return Paths(dict(zip(trajectories, points)), None)


def _turned(points: Tensor) -> Tensor:
    """(sets, steps + 1, 2) with a sign of each axis that does not depend on the machine: its largest end is positive.
    """
    largest = points.flatten(0, 1).abs().argmax(0)
    return points * points.flatten(0, 1).gather(0, largest[None]).sign().where(points.abs().amax((0, 1)) > 0, 1)
