"""The geometry of one layer: what its deltas share, exactly, from their Gram matrices. No dense ΔW is ever formed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .grams import Grams

NULL = 1e-6
"""share of the largest singular value below which a direction is numerically none"""


@dataclass(frozen=True)
class Subspaces:
    """The thin SVD of a delta, ΔW = U diag(s) Vᵀ with U = B · left and V = Aᵀ · right, null directions left out.

    values: (r,), falling; left, right: (rank, r), coefficients over the factors' own directions.
    """

    values: Tensor
    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """The numerical rank."""
        return len(self.values)


def inner_products(grams: Grams) -> Tensor:
    """⟨ΔWᵢ, ΔWⱼ⟩ = Σ (BᵢᵀBⱼ ⊙ AᵢAⱼᵀ): float64 (LoRAs, LoRAs); its diagonal holds the squared Frobenius norms."""
    product = grams.up * grams.down
    return torch.stack([torch.stack([product[a, b].sum() for b in grams.parts]) for a in grams.parts])


def cosines(inner: Tensor) -> Tensor:
    """Inner products → cosines (LoRAs, LoRAs); 0 with a LoRA that has no delta here."""
    norms = inner.diagonal().clamp(min=0).sqrt()
    scale = norms[:, None] * norms
    return torch.where(scale > 0, inner / scale.clamp(min=torch.finfo(inner.dtype).tiny), 0)


def subspaces(grams: Grams) -> list[Subspaces]:
    """Of each LoRA."""
    return [_subspaces(grams.up[part, part], grams.down[part, part]) for part in grams.parts]


def _subspaces(up: Tensor, down: Tensor) -> Subspaces:
    """With BᵀB = LLᵀ the squared singular values are the eigenvalues of Lᵀ(AAᵀ)L; an eigenvector p of it gives
    U = B · (AAᵀ)Lp/s² and V = Aᵀ · (BᵀB)(AAᵀ)Lp/s³, without an inverse that a deficient rank would spoil."""
    lower = _root(up)
    squares, vectors = torch.linalg.eigh(lower.T @ down @ lower)
    squares, vectors = squares.flip(0), vectors.flip(1)
    kept = squares > NULL**2 * squares[:1].clamp(min=torch.finfo(squares.dtype).tiny)
    squares, vectors = squares[kept], vectors[:, kept]
    values = squares.sqrt()
    left = down @ (lower @ vectors) / squares
    return Subspaces(values, left, up @ left / values)


def _root(gram: Tensor) -> Tensor:
    """L with LLᵀ = the gram, which may be singular: then Cholesky's fails."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    if not failed:
        return lower
    squares, vectors = torch.linalg.eigh(gram)
    return vectors * squares.clamp(min=0).sqrt()


class SharedDirections(NamedTuple):
    """U_aᵀU_b and V_aᵀV_b, float64 (rank of a, rank of b), strongest directions first."""

    left: Tensor
    right: Tensor

    def turned(self) -> SharedDirections:
        """Of b and a."""
        return SharedDirections(self.left.T, self.right.T)


def shared_directions(grams: Grams, found: Sequence[Subspaces], a: int, b: int) -> SharedDirections:
    """Of two LoRAs' left and right singular spaces."""
    part_a, part_b = grams.parts[a], grams.parts[b]
    return SharedDirections(found[a].left.T @ grams.up[part_a, part_b] @ found[b].left,
                            found[a].right.T @ grams.down[part_a, part_b] @ found[b].right)


def overlap(shared: Tensor, k: int) -> float:
    """‖U_aᵀU_b‖²_F / k of the k strongest directions of both, or as many as both have: 0 apart, 1 the same."""
    k = min(k, *shared.shape)
    return float(shared[:k, :k].square().sum() / k) if k else 0.0


def principal_angles(shared: Tensor) -> Tensor:
    """Angles in degrees between the subspaces, from the smallest: as many as the smaller has dimensions."""
    if 0 in shared.shape:
        return shared.new_zeros(0)
    return torch.linalg.svdvals(shared).clamp(max=1).acos().rad2deg()


def superposition(inner: Tensor, weights: Sequence[float]) -> float | None:
    """‖Σ λ_k ΔW_k‖² / Σ ‖λ_k ΔW_k‖²: 1 where they are orthogonal, up to their number where they are the same, 0 where
    they cancel; None where there is nothing."""
    weights = inner.new_tensor(weights)
    scaled = inner * weights[:, None] * weights
    total = scaled.diagonal().sum()
    return float(scaled.sum() / total) if total > 0 else None


def rank_of_sum(grams: Grams, weights: Sequence[float]) -> int:
    """The numerical rank of Σ λ_k ΔW_k: what is small beside the largest of the addends, has cancelled."""
    gates = grams.up.new_zeros(len(grams.up))
    for part, weight in zip(grams.parts, weights):
        gates[part] = weight
    down = grams.down * gates[:, None] * gates
    lower = _root(grams.up)
    squares = torch.linalg.eigvalsh(lower.T @ down @ lower)
    largest = max(float((grams.up * down)[part, part].sum()) for part in grams.parts)
    return int((squares > NULL**2 * largest).sum()) if largest > 0 else 0


def share_within(values: Tensor, shared: SharedDirections, k: int | None = None) -> float:
    """How much of ‖ΔW_a‖² lies in the k strongest directions of b (all: None), on the left or on the right: what
    projecting b out of both sides takes from a, 1 − ‖(1 − U_bU_bᵀ) ΔW_a (1 − V_bV_bᵀ)‖² / ‖ΔW_a‖².

    values: a's singular values; shared: of a and b.
    """
    left, right = shared.left[:, :k], shared.right[:, :k]
    if 0 in left.shape:
        return 0.0
    scaled_left, scaled_right = left @ left.T, right @ right.T
    # Σᵢⱼ sᵢsⱼ (1 − P)ᵢⱼ (1 − Q)ᵢⱼ, with P, Q the projections seen from a's directions
    both = values @ (scaled_left * scaled_right) @ values
    alone = (values.square() * (scaled_left.diagonal() + scaled_right.diagonal())).sum()
    return float(((alone - both) / values.square().sum()).clamp(0, 1))
