"""The ways of combining once more, in float64 and entry by entry, as the papers write them."""

from __future__ import annotations

import numpy as np


def trimmed(delta: np.ndarray, density: float) -> np.ndarray:
    """The k largest entries of a delta, zeros elsewhere."""
    order = np.argsort(-np.abs(delta), axis=None, kind="stable")
    kept = np.zeros(delta.size, dtype=bool)
    kept[order[:int(density * delta.size)]] = True
    return np.where(kept.reshape(delta.shape), delta, 0)


def summed(deltas, weights):
    return sum(weight * delta for delta, weight in zip(deltas, weights))


def elected_mean(deltas, weights, majority):
    """TIES' last two steps: entry by entry the sign, then the mean of the weighted entries that have it."""
    result = np.zeros_like(deltas[0])
    for place in np.ndindex(*result.shape):
        entries = [delta[place] for delta in deltas]
        votes = [entry if weight > 0 else -entry for entry, weight in zip(entries, weights)]
        if majority == "frequency":
            total = sum((vote > 0) - (vote < 0) for vote in map(float, votes))
        else:
            total = sum(votes)
        sign = 1 if total >= 0 else -1
        agreeing = [weight * entry for entry, vote, weight in zip(entries, votes, weights) if vote * sign > 0]
        result[place] = sum(agreeing) / len(agreeing) if agreeing else 0
    return result


def projected_out(delta, others, directions, strength=1.0):
    """The delta without so much of what lies in the strongest left and right singular directions of the others."""
    if not others:
        return delta
    left, right = [], []
    for other in others:
        u, values, v = np.linalg.svd(other, full_matrices=False)
        count = min(directions, int((values > 1e-9 * values[0]).sum()))
        left.append(u[:, :count])
        right.append(v[:count].T)
    keep = [np.eye(len(basis)) - strength * basis @ np.linalg.pinv(basis)
            for basis in (np.hstack(left), np.hstack(right))]
    return keep[0] @ delta @ keep[1]
