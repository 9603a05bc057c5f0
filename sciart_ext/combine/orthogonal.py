"""Combining LoRAs orthogonally: each leaves to those of larger weight the directions in which they are strongest.

    ΔW_k' = (1 − s L Lᵀ) ΔW_k (1 − s R Rᵀ)

L and R span the left and right singular vectors, the strongest ones, of all LoRAs whose weight has a larger magnitude
(of equal ones those listed first). The deltas stay products of factors: B' = (1 − s L Lᵀ) B, A' = A (1 − s R Rᵀ).

s, the strength, is μ / (1 + μ) of the soft projection of NP-LoRA (arXiv 2511.11051), which minimises
‖X − ΔW_k‖² + μ ‖X R‖² and so takes the part s of what lies in R; here on both sides. 0 is the sum, 1 the projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

NULL = 1e-6
"""share of the largest singular value below which a direction is numerically none"""


class Product(NamedTuple):
    """ΔW = up · down, scales within: float64, up (out, rank), down (rank, in)."""

    up: Tensor
    down: Tensor

    def squared_norm(self) -> float:
        """‖up · down‖²."""
        return float(((self.up.T @ self.up) * (self.down @ self.down.T)).sum().clamp(min=0))


def order_of(weights: Mapping[int, float]) -> tuple[int, ...]:
    """The LoRAs that act, from the largest weight to the smallest."""
    return tuple(sorted((k for k in weights if weights[k]), key=lambda k: -abs(weights[k])))


def orthogonal(products: Mapping[int, Product], order: tuple[int, ...], directions: int,
               strength: float) -> dict[int, Product]:
    """The products of the LoRAs in `order`, each without so much, 0 to 1, of what lies in the strongest directions of
    those before it."""
    first = products[order[0]]
    left, right = first.up.new_zeros(len(first.up), 0), first.down.new_zeros(first.down.shape[1], 0)
    reduced = {}
    for k in order:
        up, down = products[k]
        reduced[k] = Product(up - strength * (left @ (left.T @ up)), down - strength * ((down @ right) @ right.T))
        strongest = strongest_directions(products[k], directions)
        left, right = _joined(left, strongest[0]), _joined(right, strongest[1])
    return reduced


def strongest_directions(product: Product, count: int) -> tuple[Tensor, Tensor]:
    """The left and right singular vectors of the largest singular values, in columns: (out, ≤ count), (in, ≤ count)."""
    q_up, r_up = torch.linalg.qr(product.up)
    q_down, r_down = torch.linalg.qr(product.down.T)
    u, values, v = torch.linalg.svd(r_up @ r_down.T)
    count = min(count, int((values > NULL * values[0]).sum()))
    return q_up @ u[:, :count], q_down @ v[:count].T


def _joined(basis: Tensor, more: Tensor) -> Tensor:
    """An orthonormal basis of the space of both, whose columns are orthonormal already."""
    rest = more - basis @ (basis.T @ more)
    u, values, _ = torch.linalg.svd(rest, full_matrices=False)
    joined = torch.cat([basis, u[:, values > NULL]], 1)
    return torch.linalg.qr(joined)[0]
