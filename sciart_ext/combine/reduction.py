"""Matrices reduced to a rank, and what is lost by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .choices import SVD
from .orthogonal import Product

OVERSAMPLING = 16
POWER_ITERATIONS = 4
# A randomised SVD of so small a share of a matrix' dimensions is quicker than the exact one (2 CPU cores, float32).
RANDOMISED_SHARE = 0.25


class Reduced(NamedTuple):
    """The rank-r matrix up · down, its singular values shared between both: up (out, r), down (r, in).

    lost, whole: squared Frobenius norms of what is not in it and of what was to be reduced.
    """

    up: Tensor
    down: Tensor
    lost: float
    whole: float


def relative_error(parts: Sequence[Reduced]) -> float:
    """‖C − C_r‖ / ‖C‖ of several matrices together; 0 where all is 0."""
    whole = sum(part.whole for part in parts)
    return math.sqrt(sum(part.lost for part in parts) / whole) if whole else 0.0


def reduce_products(products: Sequence[Product], rank: int) -> Reduced:
    """The nearest matrix of this rank to Σ up·down, exactly (Eckart and Young), without a dense matrix.

    With up = QR and downᵀ = Q'R' the singular values are those of R R'ᵀ, ranks × ranks.
    """
    q_up, r_up = torch.linalg.qr(torch.cat([product.up for product in products], 1))
    q_down, r_down = torch.linalg.qr(torch.cat([product.down for product in products], 0).T)
    u, values, v = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    roots = values[:rank].sqrt()
    return Reduced(q_up @ (u[:, :rank] * roots), (roots[:, None] * v[:rank]) @ q_down.T,
                   float(values[rank:].square().sum()), float(values.square().sum()))


def reduce_dense(matrix: Tensor, rank: int, svd: str = "auto", seed: int = 0) -> Reduced:
    """The nearest matrix of this rank, exactly, or by a randomised SVD (Halko et al., arXiv 0909.4061, algorithms 4.4
    and 5.1) near it; either way `lost` is what that matrix really lacks."""
    if svd not in SVD:
        raise ValueError(f"svd is {svd!r}; accepted: {', '.join(SVD)}")
    randomised = svd == "randomised" or (svd == "auto" and rank + OVERSAMPLING < RANDOMISED_SHARE * min(matrix.shape))
    if randomised and rank + OVERSAMPLING < min(matrix.shape):
        basis = _range(matrix, rank + OVERSAMPLING, seed)
        u, values, v = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
        u = basis @ u
    else:
        u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    roots = values[:rank].sqrt()
    up, down = u[:, :rank] * roots, roots[:, None] * v[:rank]
    lost = (matrix - up @ down).double().square().sum()
    return Reduced(up, down, float(lost), float(matrix.double().square().sum()))


def _range(matrix: Tensor, count: int, seed: int) -> Tensor:
    """An orthonormal basis (out, count) of what the matrix mostly maps to."""
    generator = torch.Generator("cpu").manual_seed(seed)
    probes = torch.randn(matrix.shape[1], count, generator=generator, dtype=torch.float32).to(matrix)
    basis = torch.linalg.qr(matrix @ probes)[0]
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix.T @ basis)[0]
        basis = torch.linalg.qr(matrix @ basis)[0]
    return basis
