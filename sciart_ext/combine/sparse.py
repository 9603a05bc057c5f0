"""Combining thinned deltas: ties, dare-linear, dare-ties and magnitude-prune, as functions of dense deltas.

A method thins each ΔW_k to the entries M_k and joins what is left, by the sum or by the mean of those that agree:

    magnitude-prune, dare-linear:  C = r · Σ λ_k M_k ⊙ ΔW_k
    ties, dare-ties:               C = r · Σ λ_k M_k ⊙ ΔW_k / max(1, Σ M_k),  M_k only where the sign is the elected one

with r = 1 / density where entries are dropped at random, so that the expectation stays (arXiv 2311.03099, equation 2),
and 1 where the largest are kept. As in PEFT's `merge_utils` the weights multiply after the election and the mean is
divided by the number of LoRAs that agree, not by their weights: with constant signs C is linear in the weights. A LoRA
with a negative weight votes with the opposite sign, and one of weight 0 is absent; PEFT takes neither into account.

All LoRAs' entries lie in one tensor (LoRAs, rows, in), a block of rows at a time, so that each step is one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..lora.low_rank import LowRank
from . import masks
from .deltas import Deltas
from .masks import PLACES, Bits, Bools

if TYPE_CHECKING:
    from ..recipe.combining import Combination

# Entries of all LoRAs together that are joined at a time: on a CPU what is made on the way stays in its cache; on a GPU
# it takes 23 bytes an entry at most (4 for the deltas, 3 for the masks, 16 of C for each of the LoRAs), 184 MB.
BLOCK_ENTRIES, GPU_BLOCK_ENTRIES = 2**19, 2**23


class Thinning(NamedTuple):
    """by_chance: entries are dropped at random and the others enlarged, else the largest are kept; elects: what is left
    must have the elected sign, and its mean is taken."""

    by_chance: bool
    elects: bool


class Block(NamedTuple):
    """Some rows of C: total (rows, in)."""

    rows: slice
    total: Tensor


THINNINGS = {"magnitude-prune": Thinning(False, False), "ties": Thinning(False, True),
             "dare-linear": Thinning(True, False), "dare-ties": Thinning(True, True)}


def dense(delta: LowRank) -> Tensor:
    """ΔW = s·B·A as a matrix (out, in·kh·kw), in float32 or the factors' own precision where that is higher."""
    dtype = torch.promote_types(torch.promote_types(delta.up.dtype, delta.down.dtype), torch.float32)
    return (delta.up.flatten(1).to(dtype) * delta.scale) @ delta.down.flatten(1).to(dtype)


def elect_(deltas: Tensor, weights: Sequence[float], majority: str) -> Tensor:
    """Leaves of deltas (LoRAs, rows, in) the magnitudes of the entries whose sign won the election among them, zeros in
    place of the others; returns the signs that won, −1 or 1 (arXiv 2306.01708, section 3).

    majority: `total`, the sign of the entries' sum, as in the paper; `frequency`, the sign that most have. A tie is
    positive. Zeros have no sign. A LoRA of negative weight votes with the opposite sign.
    """
    for delta, weight in zip(deltas, weights):
        if weight < 0:
            delta.neg_()
    total = (deltas.sign() if majority == "frequency" else deltas).sum(0)
    signs = torch.copysign(torch.ones((), dtype=deltas.dtype), total)
    deltas.mul_(signs).clamp_(min=0)
    return signs


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
        self.kept: dict[int, Tensor] = {}
        """by LoRA, the entries of its delta that are kept: packed, in main memory"""

    def __call__(self, deltas: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor:
        """C of the deltas (out, in) by the LoRAs' indices; those of weight 0 are absent, and need not be given."""
        own = {k: weights[k] for k in deltas if weights[k]}
        matrices = [deltas[k] for k in own]
        combined = torch.empty_like(matrices[0])
        multipliers = torch.tensor(self.multipliers(own.values()), dtype=combined.dtype, device=combined.device)
        for block in self.blocks(Deltas(None, matrices, combined.dtype), self._bits_of(own, deltas),
                                 list(own.values()), multipliers):
            combined[block.rows] = block.total
        return combined

    def thinned(self, deltas: Mapping[int, Tensor], weights: Mapping[int, float]) -> dict[int, Tensor]:
        """What of each LoRA comes into C, before it is enlarged; weights: of those that act."""
        stack = torch.stack([deltas[k] for k in weights])
        stack.mul_(self._bits_of(weights, deltas).whole())
        if self.thinning.elects:
            signs = elect_(stack, list(weights.values()), self.settings.majority)
            for delta, weight in zip(stack, weights.values()):
                delta.mul_(signs if weight > 0 else -signs)
        return dict(zip(weights, stack.unbind()))

    def blocks(self, deltas: Deltas, kept: Bits | Bools, weights: Sequence[float], multipliers: Tensor,
               ) -> Iterator[Block]:
        """C, some rows at a time. kept, weights, of which none is 0: of each delta; multipliers: what `multipliers`
        gives for these weights, beside the deltas and in their precision."""
        out, inputs = deltas.shape
        entries = (BLOCK_ENTRIES if deltas.device.type == "cpu" else GPU_BLOCK_ENTRIES) // deltas.count
        step = max(entries // inputs // 8 * 8, 8)  # masks are cut between their bytes
        memory = torch.empty(deltas.count * min(step, out) * inputs, dtype=deltas.dtype, device=deltas.device)
        for start in range(0, out, step):
            rows = slice(start, min(start + step, out))
            stack = memory[:deltas.count * (rows.stop - start) * inputs].view(deltas.count, -1, inputs)
            deltas.write(rows, stack)
            stack.mul_(kept.rows(rows))
            yield Block(rows, self._joined(stack, weights, multipliers))

    def _joined(self, stack: Tensor, weights: Sequence[float], multipliers: Tensor) -> Tensor:
        """C of thinned deltas (LoRAs, rows, in), which are overwritten."""
        signs = elect_(stack, weights, self.settings.majority) if self.thinning.elects else None
        total = torch.mv(stack.flatten(1).t(), multipliers).view(stack.shape[1:])
        return total if signs is None else total.mul_(signs).div_(stack.sign_().sum(0).clamp_(min=1))

    def multipliers(self, weights: Iterable[float]) -> tuple[float, ...]:
        """By what the entries that are left are multiplied: of an election's they are magnitudes, with the sign that
        won."""
        enlarged = 1 / self.settings.density if self.thinning.by_chance else 1.0
        return tuple((abs(weight) if self.thinning.elects else weight) * enlarged for weight in weights)

    def bits(self, k: int, shape: tuple[int, int], delta: Callable[[], Tensor]) -> Tensor:
        """The entries of LoRA k's delta (out, in) that are kept, packed, in main memory. delta: what gives it, where it
        has not been asked before and matters."""
        if k not in self.kept:
            density = self.settings.density
            mask = (masks.at_random(shape, density, self.settings.seed, self.layer, self.loras[k])
                    if self.thinning.by_chance else masks.largest(delta(), density))
            self.kept[k] = masks.pack(mask)
        return self.kept[k]

    def _bits_of(self, loras: Iterable[int], deltas: Mapping[int, Tensor]) -> Bits:
        first = next(iter(deltas.values()))
        packed = [self.bits(k, tuple(first.shape), lambda k=k: deltas[k]) for k in loras]
        return Bits(torch.stack(packed).to(first.device), PLACES.to(first.device), tuple(first.shape))

    @property
    def nbytes(self) -> int:
        """Main memory that the kept entries take now."""
        return sum(packed.numel() for packed in self.kept.values())
