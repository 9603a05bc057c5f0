"""Combining thinned deltas: ties, dare-linear, dare-ties and magnitude-prune, as functions of dense deltas.

A method thins each ΔW_k to the entries M_k and joins what is left, by the sum or by the mean of those that agree:

    magnitude-prune, dare-linear:  C = r · Σ λ_k M_k ⊙ ΔW_k
    ties, dare-ties:               C = r · Σ λ_k M_k ⊙ ΔW_k / max(1, Σ M_k),  M_k only where the sign is the elected one

with r = 1 / density where entries are dropped at random, so that the expectation stays (arXiv 2311.03099, equation 2),
and 1 where the largest are kept. As in PEFT's `merge_utils` the weights multiply after the election and the mean is
divided by the number of LoRAs that agree, not by their weights: with constant signs C is linear in the weights. A LoRA
with a negative weight votes with the opposite sign, and one of weight 0 is absent; PEFT takes neither into account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..lora.low_rank import LowRank
from . import masks

if TYPE_CHECKING:
    from .settings import Combination

# Entries that a CPU joins at a time: what is made on the way then stays in its cache.
BLOCK_ENTRIES = 2**17


class Thinning(NamedTuple):
    """by_chance: entries are dropped at random and the others enlarged, else the largest are kept; elects: what is left
    must have the elected sign, and its mean is taken."""

    by_chance: bool
    elects: bool


THINNINGS = {"magnitude-prune": Thinning(False, False), "ties": Thinning(False, True),
             "dare-linear": Thinning(True, False), "dare-ties": Thinning(True, True)}


def dense(delta: LowRank) -> Tensor:
    """ΔW = s·B·A as a matrix (out, in·kh·kw), in float32 or the factors' own precision where that is higher."""
    dtype = torch.promote_types(torch.promote_types(delta.up.dtype, delta.down.dtype), torch.float32)
    return (delta.up.flatten(1).to(dtype) * delta.scale) @ delta.down.flatten(1).to(dtype)


def linear(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ λ_k ΔW_k."""
    total = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:]):
        total.add_(delta, alpha=weight)
    return total


def elected(deltas: Sequence[Tensor], weights: Sequence[float], majority: str) -> list[Tensor]:
    """The deltas without the entries whose sign lost the election among them (arXiv 2306.01708, section 3).

    majority: `total`, the sign of the entries' sum, as in the paper; `frequency`, the sign that most have. A tie is
    positive. Zeros have no sign.
    """
    votes = [delta if weight > 0 else -delta for delta, weight in zip(deltas, weights)]
    cast = [vote.sign() for vote in votes] if majority == "frequency" else votes
    positive = linear(cast, [1.0] * len(cast)) >= 0
    return [delta * ((vote > 0) == positive) for delta, vote in zip(deltas, votes)]  # zeros stay zeros


def disjoint_mean(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ λ_k ΔW_k, each entry divided by the number of LoRAs that have one there."""
    count = sum((delta != 0).to(torch.int8) for delta in deltas)
    return linear(deltas, weights) / count.clamp(min=1)


class SparseCombination:
    """The LoRAs of one layer, combined by one of the thinning methods.

    What depends on the files alone, the entries kept, is found once and then held in one bit an entry: changed weights
    cost products, an election and a sum. loras: the names by which random entries are drawn, by index.
    """

    def __init__(self, combination: Combination, layer: str, loras: Mapping[int, str]):
        self.thinning = THINNINGS[combination.method]
        self.settings = combination.settings
        self.layer = layer
        self.loras = dict(loras)
        self._kept: dict[int, Tensor] = {}

    def __call__(self, deltas: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor:
        """C of the deltas (out, in) by the LoRAs' indices; those of weight 0 are absent, and need not be given."""
        own = {k: weights[k] for k in deltas if weights[k]}
        kept = {k: self.kept(k, deltas[k]) for k in own}
        first = deltas[next(iter(own))]
        combined = torch.empty_like(first)
        step = len(first) if first.is_cuda else max(BLOCK_ENTRIES // first.shape[1], 1)
        for start in range(0, len(first), step):
            rows = slice(start, start + step)
            thin = self._chosen({k: deltas[k][rows] * kept[k][rows] for k in own}, own)
            combined[rows] = self.joined(thin, own)
        return combined

    def thinned(self, deltas: Mapping[int, Tensor], weights: Mapping[int, float]) -> dict[int, Tensor]:
        """What of each LoRA comes into C, before it is enlarged; weights: of those that act."""
        return self._chosen({k: deltas[k] * self.kept(k, deltas[k]) for k in weights}, weights)

    def _chosen(self, thin: dict[int, Tensor], weights: Mapping[int, float]) -> dict[int, Tensor]:
        if not self.thinning.elects:
            return thin
        return dict(zip(thin, elected(list(thin.values()), [weights[k] for k in thin], self.settings.majority)))

    def joined(self, thin: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor:
        """C of what `thinned` gives."""
        factor = 1 / self.settings.density if self.thinning.by_chance else 1.0
        join = disjoint_mean if self.thinning.elects else linear
        return join(list(thin.values()), [weights[k] * factor for k in thin])

    def kept(self, k: int, delta: Tensor) -> Tensor:
        """The entries of LoRA k's delta that are kept: bool (out, in)."""
        if k not in self._kept:
            density = self.settings.density
            mask = (masks.at_random(delta.shape, density, self.settings.seed, self.layer, self.loras[k])
                    if self.thinning.by_chance else masks.largest(delta, density))
            self._kept[k] = masks.pack(mask)
        return masks.unpack(self._kept[k], delta.shape, delta.device)

    @property
    def nbytes(self) -> int:
        """Main memory that the kept entries take now."""
        return sum(packed.numel() for packed in self._kept.values())
