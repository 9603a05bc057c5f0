"""LoRAs compared over all their layers: each layer, each block of the model, all together, and where they conflict."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor

from ..errors import SciArtError
from ..lora.base_model import common_base, told_bases
from ..lora.blocks import BASE, LABELS, label_of
from ..lora.exact_factors import exact_factors, factors_rank, has_directions, needs_model
from ..lora.file import LoraFile
from .grams import Grams, layer_grams, together
from .layer import (
    cosines,
    inner_products,
    overlaps,
    principal_angles,
    rank_of_sum,
    share_by_chance,
    share_within,
    shared_directions,
    subspaces,
    superposition,
)

RANKS = (1, 4, 16)
"""dimensions of the subspaces whose overlap is told"""
NOTABLE = 0.05
"""from how much above chance a share of one LoRA within the other is a conflict"""
AT_ONCE = 64
"""layers whose Gram matrices are taken apart together"""


@dataclass(frozen=True)
class Shared:
    """What a layer's, a block's or all deltas of the LoRAs have in common; matrices are float64 (LoRAs, LoRAs).

    inner: inner products, on the diagonal the squared norms; overlaps: of the strongest directions, by their number,
    means over layers; removed: [a, b] the share of a's squared norm that projecting b out would take; chance: what it
    would be if b's directions had nothing to do with a; ranks, rank_of_sum: numerical ranks of each and of the weighted
    sum, totals over layers.
    """

    inner: Tensor
    overlaps: dict[int, Tensor]
    removed: Tensor
    chance: Tensor
    ranks: Tensor
    rank_of_sum: int
    weights: tuple[float, ...]

    @property
    def norms(self) -> Tensor:
        """‖ΔW‖ of each (LoRAs,)."""
        return self.inner.diagonal().clamp(min=0).sqrt()

    @property
    def cosines(self) -> Tensor:
        return cosines(self.inner)

    @property
    def superposition(self) -> float | None:
        """‖Σ λ ΔW‖² / Σ ‖λ ΔW‖²: above 1 they add up, below 1 they cancel; None where there is nothing."""
        return superposition(self.inner, self.weights)


@dataclass(frozen=True)
class LayerShared(Shared):
    """Of one layer; spectra: singular values of each LoRA; angles: principal angles in degrees, by pair (a, b), a < b.
    """

    name: str
    spectra: tuple[Tensor, ...]
    angles: dict[tuple[int, int], Tensor]

    @property
    def block(self) -> str:
        return label_of(self.name) or BASE


@dataclass(frozen=True)
class Conflict:
    """b's directions hold `removed` of a's change in a block: as much would orthogonal combination take from a at
    strength 1."""

    a: str
    b: str
    block: str
    removed: float
    chance: float
    cosine: float

    def __str__(self) -> str:
        how = ("the same way" if self.cosine > 0.05 else "against each other" if self.cosine < -0.05
               else "in different ways")
        return (f"{self.a} and {self.b} overlap most in {self.block}, {how} (cosine {self.cosine:+.2f}): orthogonal "
                f"would remove {100 * self.removed:.0f} % of {self.a} at strength 1; were they unrelated, "
                f"{100 * self.chance:.0f} %")


@dataclass(frozen=True)
class Comparison:
    """Of LoRAs: layer by layer in the order of their depth, and together."""

    names: tuple[str, ...]
    layers: tuple[LayerShared, ...]

    def blocks(self) -> dict[str, Shared]:
        """By the usual labels of blocks, in the order of their depth: BASE, IN00 …, M00, OUT00 …"""
        grouped: dict[str, list[LayerShared]] = {}
        for layer in self.layers:
            grouped.setdefault(layer.block, []).append(layer)
        return {block: _together(layers) for block, layers in grouped.items()}

    def whole(self) -> Shared:
        """Of all layers: the LoRAs as one vector each."""
        return _together(self.layers)

    def conflicts(self) -> list[Conflict]:
        """For each pair the block where the second's directions hold most of the first's change above what chance
        would, if it is notable; the largest first."""
        found = []
        blocks = self.blocks()
        for a, b in permutations(range(len(self.names)), 2):
            block = max(blocks, key=lambda one: float((blocks[one].removed - blocks[one].chance)[a, b]
                                                      * blocks[one].inner[a, a]))
            shared = blocks[block]
            if shared.removed[a, b] > shared.chance[a, b] + NOTABLE:
                found.append(Conflict(self.names[a], self.names[b], block, float(shared.removed[a, b]),
                                      float(shared.chance[a, b]), float(shared.cosines[a, b])))
        return sorted(found, key=lambda conflict: conflict.chance - conflict.removed)


def compare(loras: Sequence[LoraFile], weights: Sequence[float] | None = None,
            on_layer: Callable[[int, int], None] | None = None) -> Comparison:
    """The geometry of two or more LoRAs; weights: λ of each in the sum, 1 by default; on_layer(done, layers): progress.

    Of weights alone: biases and norms have no directions. Raises `SciArtError` where there are fewer than two, where
    two are made for different models, or where one has no delta of its own (DoRA, IA3, OFT, BOFT, GLoRA).
    """
    if len(loras) < 2:
        raise SciArtError("loras", "geometry compares LoRAs: give two or more")
    weights = tuple(float(weight) for weight in weights or [1.0] * len(loras))
    if len(weights) != len(loras):
        raise SciArtError("weights", f"{len(weights)} weights for {len(loras)} LoRAs; give one for each")
    _check_comparable(loras)
    names = sorted({name for lora in loras for name, delta in lora.layers.items() if has_directions(name, delta)},
                   key=_depth)
    groups: dict[tuple, list[str]] = {}
    for name in names:
        ranks = tuple(factors_rank(lora.layers[name]) if name in lora.layers else 0 for lora in loras)
        groups.setdefault(ranks, []).append(name)
    layers: dict[str, LayerShared] = {}
    for group in groups.values():
        for start in range(0, len(group), AT_ONCE):
            some = group[start:start + AT_ONCE]
            grams = []
            for name in some:
                grams.append(_read(name, loras))
                if on_layer is not None:
                    on_layer(len(layers) + len(grams), len(names))
            layers.update(zip(some, _compared(some, together(grams), weights)))
    return Comparison(tuple(lora.name for lora in loras), tuple(layers[name] for name in names))


def _check_comparable(loras: Sequence[LoraFile]) -> None:
    """Raises `SciArtError` for LoRAs of different models, one whose change depends on the model, and one that changes
    no weights of layers."""
    common_base(loras)
    for i, lora in enumerate(loras):
        kinds = {delta.kind for delta in lora.layers.values() if needs_model(delta)}
        if kinds:
            told = ", ".join(sorted(kinds))
            raise SciArtError(f"loras[{i}]", f"{lora.name} is {told}: what it changes depends on the model; geometry "
                                             "compares LoRA, LoCon, LoHa, LoKr and full differences")
        if not any(has_directions(name, delta) for name, delta in lora.layers.items()):
            raise SciArtError(f"loras[{i}]", f"{lora.name} is {lora.kind}: it changes no weights of layers")


def _read(name: str, loras: Sequence[LoraFile]) -> Grams:
    try:
        return layer_grams([exact_factors(lora.layers[name]) if name in lora.layers else None for lora in loras])
    except ValueError as error:
        raise SciArtError("loras", f"made for different models: {told_bases(loras)}; {name}: {error}") from None


def _compared(names: Sequence[str], grams: Grams, weights: tuple[float, ...]) -> list[LayerShared]:
    """Of these layers."""
    found = subspaces(grams)
    layers, count = len(names), len(found)
    shares = {k: torch.eye(count, dtype=torch.float64).repeat(layers, 1, 1) for k in RANKS}
    removed = torch.eye(count, dtype=torch.float64).repeat(layers, 1, 1)
    ranks = torch.stack([one.ranks for one in found], -1)
    chance = torch.stack([share_by_chance(grams.shapes, rank) for rank in ranks.unbind(-1)], -1)
    angles: dict[tuple[int, int], list[Tensor]] = {}
    for a, b in combinations(range(count), 2):
        shared = shared_directions(grams, found, a, b)
        angles[a, b] = principal_angles(shared)
        for k, found_shares in zip(RANKS, overlaps(shared, RANKS)):
            shares[k][:, a, b] = shares[k][:, b, a] = found_shares
        removed[:, a, b] = share_within(found[a].values, shared)
        removed[:, b, a] = share_within(found[b].values, shared.turned())
    inner, sums = inner_products(grams), rank_of_sum(grams, weights).tolist()

    def layer(i: int) -> LayerShared:
        spectra = tuple(one.values[i, :rank] for one, rank in zip(found, ranks[i].tolist()))
        return LayerShared(inner[i], {k: of_layers[i] for k, of_layers in shares.items()}, removed[i],
                           chance[i].expand(count, -1), ranks[i], sums[i], weights, names[i], spectra,
                           {pair: of_layers[i] for pair, of_layers in angles.items()})

    return [layer(i) for i in range(layers)]


def _together(layers: Sequence[Shared]) -> Shared:
    """Sums over layers; what is removed by the share of the norm that each layer has; overlaps as means over the layers
    that both LoRAs reach."""
    inner = torch.stack([layer.inner for layer in layers])
    norms = inner.diagonal(dim1=1, dim2=2)
    weighed = norms / norms.sum(0).clamp(min=1e-300)
    removed = (torch.stack([layer.removed for layer in layers]) * weighed[:, :, None]).sum(0)
    chance = (torch.stack([layer.chance for layer in layers]) * weighed[:, :, None]).sum(0)
    ranks = torch.stack([layer.ranks for layer in layers])
    both = ((ranks[:, :, None] > 0) & (ranks[:, None] > 0)).double()
    overlaps = {k: (torch.stack([layer.overlaps[k] for layer in layers]) * both).sum(0) / both.sum(0).clamp(min=1)
                for k in RANKS}
    return Shared(inner.sum(0), overlaps, removed, chance, ranks.sum(0),
                  sum(layer.rank_of_sum for layer in layers), layers[0].weights)


def _depth(layer: str) -> tuple:
    """The order of layers from the prompt to the picture."""
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", layer)]
    return LABELS.index(label_of(layer) or BASE), parts
