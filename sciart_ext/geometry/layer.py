"""The geometry of layers: what their deltas share, exactly, from their Gram matrices. No dense ΔW is ever formed.

Everything is told of many layers at once, in the first dimension, because each of them is small.
"""

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
    """The thin SVD of a LoRA's delta in each layer, ΔW = U diag(s) Vᵀ with U = B · left and V = Aᵀ · right.

    values: (layers, r), falling; left, right: (layers, r, r), coefficients over the factors' own directions, the
    directions in columns. Of null directions all is 0; they come last.
    """

    values: Tensor
    left: Tensor
    right: Tensor

    @property
    def ranks(self) -> Tensor:
        """The numerical ranks (layers,)."""
        return (self.values > 0).sum(-1)


def inner_products(grams: Grams) -> Tensor:
    """⟨ΔWᵢ, ΔWⱼ⟩ = Σ (BᵢᵀBⱼ ⊙ AᵢAⱼᵀ): float64 (layers, LoRAs, LoRAs); its diagonal holds the squared Frobenius norms.
    """
    product = grams.up * grams.down
    rows = [[product[:, a, b].sum((-2, -1)) for b in grams.parts] for a in grams.parts]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def cosines(inner: Tensor) -> Tensor:
    """Inner products (…, LoRAs, LoRAs) → cosines; 0 with a LoRA that has no delta here."""
    norms = inner.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = norms[..., :, None] * norms[..., None, :]
    return torch.where(scale > 0, inner / scale.clamp(min=torch.finfo(inner.dtype).tiny), 0)


def subspaces(grams: Grams) -> list[Subspaces]:
    """Of each LoRA."""
    return [_subspaces(grams.up[:, part, part], grams.down[:, part, part]) for part in grams.parts]


def _subspaces(up: Tensor, down: Tensor) -> Subspaces:
    """With BᵀB = LLᵀ the squared singular values are the eigenvalues of Lᵀ(AAᵀ)L; an eigenvector p of it gives
    U = B · (AAᵀ)Lp/s² and V = Aᵀ · (BᵀB)(AAᵀ)Lp/s³, without an inverse that a deficient rank would spoil."""
    lower = _root(up)
    squares, vectors = torch.linalg.eigh(lower.mT @ down @ lower)
    squares, vectors = squares.flip(-1), vectors.flip(-1)
    kept = squares > NULL**2 * squares[:, :1].clamp(min=torch.finfo(squares.dtype).tiny)
    values = torch.where(kept, squares, 1).sqrt()  # 1 keeps the divisions finite where nothing is kept
    left = torch.where(kept[:, None], down @ (lower @ vectors) / values.square()[:, None], 0)
    return Subspaces(torch.where(kept, values, 0), left, up @ left / values[:, None])


def _root(grams: Tensor) -> Tensor:
    """L with LLᵀ = the gram, of each; which may be singular: then Cholesky's fails."""
    lower, failed = torch.linalg.cholesky_ex(grams)
    singular = failed > 0
    if singular.any():
        squares, vectors = torch.linalg.eigh(grams[singular])
        lower[singular] = vectors * squares.clamp(min=0).sqrt()[:, None]
    return lower


class SharedDirections(NamedTuple):
    """U_aᵀU_b and V_aᵀV_b of two LoRAs, float64 (layers, r of a, r of b), strongest directions first; dimensions:
    (layers,), the smaller of their ranks."""

    left: Tensor
    right: Tensor
    dimensions: Tensor

    def turned(self) -> SharedDirections:
        """Of b and a."""
        return SharedDirections(self.left.mT, self.right.mT, self.dimensions)


def shared_directions(grams: Grams, found: Sequence[Subspaces], a: int, b: int) -> SharedDirections:
    """Of two LoRAs' left and right singular spaces."""
    part_a, part_b = grams.parts[a], grams.parts[b]
    return SharedDirections(found[a].left.mT @ grams.up[:, part_a, part_b] @ found[b].left,
                            found[a].right.mT @ grams.down[:, part_a, part_b] @ found[b].right,
                            torch.minimum(found[a].ranks, found[b].ranks))


def overlaps(shared: SharedDirections, ranks: Sequence[int]) -> list[Tensor]:
    """‖U_aᵀU_b‖²_F / k of the k strongest directions of both, or as many as both have, for each k of `ranks`:
    (layers,), 0 apart, 1 the same."""
    sums = shared.left.square().cumsum(-2).cumsum(-1)
    found = []
    for k in ranks:
        count = shared.dimensions.clamp(max=k)
        last = (count - 1).clamp(min=0)
        inside = sums[torch.arange(len(sums)), last, last] if 0 not in sums.shape else count.double()
        found.append(torch.where(count > 0, inside / count.clamp(min=1), 0))
    return found


def principal_angles(shared: SharedDirections) -> list[Tensor]:
    """Angles in degrees between the left subspaces, from the smallest: of each layer as many as the smaller has
    dimensions."""
    if 0 in shared.left.shape:
        return [shared.left.new_zeros(0)] * len(shared.left)
    angles = torch.linalg.svdvals(shared.left).clamp(max=1).acos().rad2deg()
    return [one[:count] for one, count in zip(angles, shared.dimensions.tolist())]


def superposition(inner: Tensor, weights: Sequence[float]) -> float | None:
    """‖Σ λ_k ΔW_k‖² / Σ ‖λ_k ΔW_k‖² from inner products (LoRAs, LoRAs): 1 where they are orthogonal, up to their number
    where they are the same, 0 where they cancel; None where there is nothing."""
    weights = inner.new_tensor(weights)
    scaled = inner * weights[:, None] * weights
    total = scaled.diagonal().sum()
    return float(scaled.sum() / total) if total > 0 else None


def rank_of_sum(grams: Grams, weights: Sequence[float]) -> Tensor:
    """The numerical ranks (layers,) of Σ λ_k ΔW_k: what is small beside the largest of the addends, has cancelled."""
    gates = grams.up.new_zeros(grams.up.shape[-1])
    for part, weight in zip(grams.parts, weights):
        gates[part] = weight
    down = grams.down * gates[:, None] * gates
    lower = _root(grams.up)
    squares = torch.linalg.eigvalsh(lower.mT @ down @ lower)
    largest = torch.stack([(grams.up * down)[:, part, part].sum((-2, -1)) for part in grams.parts]).amax(0)
    return ((squares > NULL**2 * largest[:, None]) & (largest > 0)[:, None]).sum(-1)


def share_within(values: Tensor, shared: SharedDirections) -> Tensor:
    """How much of ‖ΔW_a‖² lies in the directions of b, on the left or on the right: what projecting b out of both sides
    takes from a, 1 − ‖(1 − U_bU_bᵀ) ΔW_a (1 − V_bV_bᵀ)‖² / ‖ΔW_a‖², (layers,).

    values: a's singular values (layers, r); shared: of a and b.
    """
    scaled_left, scaled_right = shared.left @ shared.left.mT, shared.right @ shared.right.mT
    # Σᵢⱼ sᵢsⱼ (1 − P)ᵢⱼ (1 − Q)ᵢⱼ, with P, Q the projections seen from a's directions
    both = torch.einsum("li,lij,lj->l", values, scaled_left * scaled_right, values)
    alone = (values.square() * (scaled_left + scaled_right).diagonal(dim1=-2, dim2=-1)).sum(-1)
    total = values.square().sum(-1)
    return torch.where(total > 0, (alone - both) / total.clamp(min=torch.finfo(total.dtype).tiny), 0).clamp(0, 1)


def share_by_chance(shapes: Tensor, ranks: Tensor) -> Tensor:
    """What `share_within` is on average for directions that have nothing to do with a, so many in layers of these
    shapes (layers, 2): 1 − (1 − r/m)(1 − r/n), (layers,)."""
    left = (1 - ranks[:, None].double() / shapes).clamp(min=0)
    return 1 - left[:, 0] * left[:, 1]
