"""LoRA files combined into one: the layers of C, reduced to a rank, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import SciArtError, shown
from ..lora.base_model import BASES, UNKNOWN, base_of_layers, common_base, told_bases
from ..lora.exact_factors import exact_factors, has_directions, needs_model
from ..lora.file import LoraFile
from ..lora.limits import MAX_RANK
from ..lora.low_rank import LowRank
from ..recipe import Recipe
from ..recipe.combining import CombiningSettings
from .choices import SVD
from .constants import ConstantWeights, constant_weights
from .orthogonal import Product, order_of, orthogonal
from .reduction import Reduced, reduce_dense, reduce_products, relative_error
from .sparse import SparseCombination, dense

PRODUCTS = ("linear", "orthogonal")
"""methods whose result is a product of factors, which is reduced exactly"""


class CombinedDelta(NamedTuple):
    """C of one layer, reduced; kernel: (), or (kh, kw) of a convolution; whole, taken: ‖λ_k ΔW_k‖² by LoRA, and how
    much of it did not come into C."""

    reduced: Reduced
    kernel: tuple[int, ...]
    whole: dict[int, float]
    taken: dict[int, float]

    @property
    def rank(self) -> int:
        return len(self.reduced.down)


@dataclass(frozen=True)
class Combined:
    """LoRAs combined: `layers` by canonical name; of LoRAs those that act."""

    method: str
    settings: CombiningSettings
    names: tuple[str, ...]
    files: tuple[str, ...]
    weights: tuple[ConstantWeights, ...]
    base: str
    svd: str
    layers: dict[str, CombinedDelta]

    @property
    def error(self) -> float:
        """‖C − C_r‖ / ‖C‖ over all layers: what reducing to the rank has cost."""
        return relative_error([layer.reduced for layer in self.layers.values()])

    def removed(self) -> tuple[float, ...]:
        """Of each LoRA the share of its squared norm that was not taken into C."""
        shares = []
        for k in range(len(self.names)):
            whole = sum(layer.whole.get(k, 0.0) for layer in self.layers.values())
            taken = sum(layer.taken.get(k, 0.0) for layer in self.layers.values())
            shares.append(taken / whole if whole else 0.0)
        return tuple(shares)

    def as_data(self) -> dict:
        """What was combined and how, as JSON data."""
        loras = zip(self.names, self.files, self.weights, self.removed())
        return {"method": self.method, "loras": [
                    {"name": name, "file": file, **weight.as_data(), "removed": round(share, 6)}
                    for name, file, weight, share in loras],
                **{field: getattr(self.settings, field) for field in _READS[self.method]},
                "rank": max(layer.rank for layer in self.layers.values()), "svd": self.svd, "error": self.error}

    def sentences(self) -> list[str]:
        """What was combined, and what of it was lost."""
        ranks = sorted({layer.rank for layer in self.layers.values()})
        told = f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {ranks[0]} to {ranks[-1]}"
        worst = max(self.layers, key=lambda name: relative_error([self.layers[name].reduced]))
        lines = [f"{name} × {weight}: {100 * share:.1f} % of its squared norm {_HOW[self.method]}"
                 for name, weight, share in zip(self.names, self.weights, self.removed())]
        lines.append(f"{self.method} of {len(self.names)} in {len(self.layers)} layers, {told}; the reduction's error "
                     f"is {self.error:.2g} of the whole, {relative_error([self.layers[worst].reduced]):.2g} in the "
                     f"worst layer ({worst})")
        if self.base == UNKNOWN:
            lines.append("which base model they are made for is not known: the file says nothing of itself, so that a "
                         f"WebUI lists it with every model; --base {', '.join(BASES)} says it")
        return lines


_READS = {"linear": (), "orthogonal": ("directions", "strength"), "ties": ("density", "majority"),
          "magnitude-prune": ("density",), "dare-linear": ("density", "seed"),
          "dare-ties": ("density", "majority", "seed")}
_HOW = {"linear": "removed", "orthogonal": "removed, because others of larger weight act there",
        "ties": "removed: small entries, and those whose sign lost", "magnitude-prune": "removed: small entries",
        "dare-linear": "dropped at random; the rest is enlarged",
        "dare-ties": "dropped at random or because its sign lost; the rest is enlarged"}


def combine_files(loras: Sequence[LoraFile], recipe: Recipe, rank: int | None = None, svd: str = "auto",
                  on_layer: Callable[[int, int], None] | None = None, base: str | None = None) -> Combined:
    """The recipe's LoRAs (`loras`, in the same order) combined as it says, at constant weights, in one LoRA.

    rank: of each layer of the result; by default the sum of the LoRAs' own there. svd: exact, randomised or, by the
    rank, either. base: SD1, SD2 or SDXL, where the files do not tell. Raises `SciArtError` for files of different
    models, weights that change over a picture, nothing at all.
    """
    if rank is not None and not 1 <= rank <= MAX_RANK:
        raise SciArtError("rank", f"{rank} is out of range; accepted: 1 to {MAX_RANK}")
    if svd not in SVD:
        raise SciArtError("svd", f"{shown(svd)} is not known; accepted: {', '.join(SVD)}")
    acting = [(lora, weight) for lora, weight in zip(loras, constant_weights(recipe)) if weight.acts]
    if not acting:
        raise SciArtError("loras", "every weight is 0; nothing is left to combine")
    files, weights = zip(*acting)
    base = _common_base(files, base)
    _check_kinds(files)
    names = sorted({name for lora in files for name in lora.layers})
    layers = {}
    for done, name in enumerate(names, start=1):
        own = {k: weight for k, lora in enumerate(files) if name in lora.layers and (weight := weights[k].of(name))}
        if own:
            deltas = {k: exact_factors(files[k].layers[name]) for k in own}
            kernel = _kernel(name, deltas, files)
            layers[name] = _combine_layer(name, deltas, own, recipe, {k: files[k].path.stem for k in own}, rank,
                                          svd)._replace(kernel=kernel)
        if on_layer is not None:
            on_layer(done, len(names))
    if not layers:
        raise SciArtError("loras", "every weight is 0 in the layers that the LoRAs have; nothing is left to combine")
    svd = "exact" if recipe.combine in PRODUCTS else svd
    return Combined(recipe.combine, recipe.combining, tuple(lora.name for lora in files),
                    tuple(lora.path.name for lora in files), weights, base, svd, layers)


def _combine_layer(name: str, deltas: Mapping[int, LowRank], own: Mapping[int, float], recipe: Recipe,
                   names: Mapping[int, str], rank: int | None, svd: str) -> CombinedDelta:
    first = next(iter(deltas.values()))
    most = min(first.up.shape[0], first.down[0].numel(), MAX_RANK)
    rank = min(rank or sum(delta.rank for delta in deltas.values()), most)
    if recipe.combine in PRODUCTS:
        products = {k: _product(delta) for k, delta in deltas.items()}
        left = products if recipe.combine == "linear" else orthogonal(
            products, order_of(own), recipe.combining.directions, recipe.combining.strength)
        whole = {k: product.squared_norm() for k, product in products.items()}
        taken = {k: max(whole[k] - left[k].squared_norm(), 0.0) for k in products}
        reduced = reduce_products([Product(up * own[k], down) for k, (up, down) in left.items()], rank)
    else:
        matrices = {k: dense(delta) for k, delta in deltas.items()}
        combining = SparseCombination(recipe.combination, name, names)
        thin = combining.thinned(matrices, own)
        whole = {k: float(matrix.double().square().sum()) for k, matrix in matrices.items()}
        taken = {k: max(whole[k] - float(thin[k].double().square().sum()), 0.0) for k in matrices}
        reduced = reduce_dense(combining(matrices, own), rank, svd)
    squares = {k: own[k] ** 2 for k in own}
    return CombinedDelta(reduced, (), {k: whole[k] * squares[k] for k in own}, {k: taken[k] * squares[k] for k in own})


def _product(delta: LowRank) -> Product:
    return Product(delta.up.flatten(1).double() * delta.scale, delta.down.flatten(1).double())


def _check_kinds(loras: Sequence[LoraFile]) -> None:
    for i, lora in enumerate(loras):
        if kinds := {delta.kind for delta in lora.layers.values() if needs_model(delta)}:
            raise SciArtError(f"loras[{i}]", f"{lora.name} is {', '.join(sorted(kinds))}: what it changes depends on "
                                             "the model; combine it in a recipe, not in a file")
        if vectors := [name for name, delta in lora.layers.items() if not has_directions(name, delta)]:
            raise SciArtError(f"loras[{i}]", f"{lora.name} changes biases or norms ({vectors[0]}), which a file of "
                                             "factors does not hold; combine it in a recipe, not in a file")


def _common_base(loras: Sequence[LoraFile], given: str | None) -> str:
    """What the files tell, what is given, or what all layers together tell."""
    if given is not None and given not in BASES:
        raise SciArtError("base", f"{shown(given)} is not known; accepted: {', '.join(BASES)}")
    known = common_base(loras)
    if given is not None and known not in (given, UNKNOWN):
        raise SciArtError("base", f"{given}, but the LoRAs are made for {known}")
    told = given or (known if known != UNKNOWN else base_of_layers(_all_layers(loras)))
    return told if told in BASES else UNKNOWN


def _all_layers(loras: Sequence[LoraFile]) -> dict:
    return {name: delta for lora in loras for name, delta in lora.layers.items()}


def _kernel(name: str, deltas: Mapping[int, LowRank], files: Sequence[LoraFile]) -> tuple[int, ...]:
    """() of a linear layer, (kh, kw) of a convolution. Raises where the files' layers have different shapes."""
    shapes = {(delta.up.shape[0], delta.down.shape[1], *(delta.down.shape[2:] or (1, 1))) for delta in deltas.values()}
    if len(shapes) > 1:
        told = " and ".join(str(shape[:2] if shape[2:] == (1, 1) else shape) for shape in sorted(shapes))
        raise SciArtError("loras", f"made for different models: {told_bases(files)}; {name} has shapes {told}")
    return tuple(next((delta.down.shape[2:] for delta in deltas.values() if delta.down.dim() == 4), ()))

