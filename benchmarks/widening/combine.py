"""Combined deltas of layers of SD 1.5's size against dense float64 and PEFT's own functions, and what they cost."""

from __future__ import annotations

import functools
import time
from collections import Counter

import torch
from peft.utils import merge_utils
from torch import Tensor

from sciart_ext.combine import masks
from sciart_ext.combine.orthogonal import Product, order_of, orthogonal
from sciart_ext.combine.sparse import THINNINGS, SparseCombination, dense
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.recipe.combining import METHODS, Combination, CombiningSettings

from ..explaining.geometry import shapes_of

WEIGHTS = {"child": 0.65, "watercolor": 0.55, "science": 0.5}
RANK, SETTINGS = 32, CombiningSettings(density=0.5, seed=1, directions=16)
CHANGED = 0.9
"""of the weights, when gates change"""


def measure(quick: bool) -> dict:
    """For each method ‖C − C₆₄‖ / ‖C₆₄‖ over one layer of each shape; `peft`: the same against PEFT's function;
    `seconds`: of all layers of the UNet, told from these, when a picture begins and when its gates change. quick: the
    smallest shapes."""
    counts = Counter(shapes_of("sd15").values())
    chosen = sorted(counts, key=lambda shape: shape[0] * shape[1])[:2 if quick else None]
    errors = {method: [0.0, 0.0] for method in METHODS}
    peft = {method: [0.0, 0.0] for method in METHODS if method != "orthogonal"}
    seconds = {method: {"first": 0.0, "again": 0.0} for method in METHODS}
    for number, (m, n) in enumerate(chosen):
        name, deltas = f"layer {number}", _random_deltas(m, n, number)
        wide = {k: delta.up.double() @ delta.down.double() * delta.scale for k, delta in deltas.items()}
        for method in METHODS:
            combine = _combiner(method, name, deltas)
            began = time.perf_counter()
            found = combine(1.0)
            between = time.perf_counter()
            combine(CHANGED)
            ended = time.perf_counter()
            seconds[method]["first"] += counts[m, n] * (between - began)
            seconds[method]["again"] += counts[m, n] * (ended - between)
            _add(errors[method], found, _by_the_book(method, name, wide))
            if method in peft:
                _add(peft[method], found, _by_peft(method, name, wide))
    return {**_relative(errors), "peft": _relative(peft), "shapes": len(chosen), "loras": len(WEIGHTS), "rank": RANK,
            "seconds": {method: {when: round(value, 2) for when, value in told.items()}
                        for method, told in seconds.items()}}


def _random_deltas(m: int, n: int, seed: int) -> dict[int, LowRank]:
    """Factors of each LoRA, a fourth of whose directions all share."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.arange(RANK) < RANK // 4
    common = torch.randn(RANK, n, generator=generator), torch.randn(m, RANK, generator=generator)
    return {k: LowRank(torch.where(shared[:, None], common[0], torch.randn(RANK, n, generator=generator)),
                       torch.where(shared, common[1], torch.randn(m, RANK, generator=generator)), 0.5)
            for k in range(len(WEIGHTS))}


def _combiner(method: str, name: str, deltas: dict[int, LowRank]):
    """C in float32 as the mixer makes it, of all weights times a factor."""
    def weights(factor: float) -> dict[int, float]:
        return {k: factor * weight for k, weight in enumerate(WEIGHTS.values())}

    if method in THINNINGS:
        combining = SparseCombination(Combination(method, SETTINGS), name, dict(enumerate(WEIGHTS)))
        return lambda factor: combining({k: dense(delta) for k, delta in deltas.items()}, weights(factor))

    @functools.cache
    def factors() -> dict[int, tuple[Tensor, Tensor]]:
        if method == "linear":
            return {k: (delta.up * delta.scale, delta.down) for k, delta in deltas.items()}
        products = {k: Product(delta.up.double() * delta.scale, delta.down.double()) for k, delta in deltas.items()}
        left = orthogonal(products, order_of(weights(1.0)), SETTINGS.directions, SETTINGS.strength)
        return {k: (up.float(), down.float()) for k, (up, down) in left.items()}

    return lambda factor: (torch.cat([up * weights(factor)[k] for k, (up, _) in factors().items()], 1)
                           @ torch.cat([down for _, down in factors().values()]))


def _by_the_book(method: str, name: str, deltas: dict[int, Tensor]) -> Tensor:
    """C from the papers' formulas, in float64 and of whole matrices."""
    weights = list(WEIGHTS.values())
    if method == "orthogonal":
        return _orthogonal_by_the_book(deltas, weights)
    if method == "linear":
        return sum(weight * deltas[k] for k, weight in enumerate(weights))
    thin = []
    for k, lora in enumerate(WEIGHTS):
        if method.startswith("dare"):
            kept = masks.at_random(deltas[k].shape, SETTINGS.density, SETTINGS.seed, name, lora)
            thin.append(deltas[k] * kept / SETTINGS.density)
        else:
            sizes = deltas[k].abs()
            limit = sizes.flatten().kthvalue(sizes.numel() - int(SETTINGS.density * sizes.numel()) + 1).values
            thin.append(torch.where(sizes >= limit, deltas[k], 0))
    if "ties" not in method:
        return sum(weight * one for weight, one in zip(weights, thin))
    sign = torch.where(sum(thin) >= 0, 1.0, -1.0)
    agreeing = [one.sign() == sign for one in thin]
    return sum(weight * one * own for weight, one, own in zip(weights, thin, agreeing)) / sum(agreeing).clamp(min=1)


def _orthogonal_by_the_book(deltas: dict[int, Tensor], weights: list[float]) -> Tensor:
    """Dense SVDs, dense projections; the weights fall."""
    left, right, total = None, None, 0
    for k, weight in enumerate(weights):
        own = deltas[k]
        if left is not None:
            own = own - SETTINGS.strength * left @ (left.T @ own)
            own = own - SETTINGS.strength * (own @ right) @ right.T
        total = total + weight * own
        u, _, v = torch.linalg.svd(deltas[k], full_matrices=False)
        u, v = u[:, :SETTINGS.directions], v[:SETTINGS.directions].T
        left = torch.linalg.qr(u if left is None else torch.cat([left, u], 1))[0]
        right = torch.linalg.qr(v if right is None else torch.cat([right, v], 1))[0]
    return total


def _by_peft(method: str, name: str, deltas: dict[int, Tensor]) -> Tensor:
    """PEFT's function of this name on products; what dare drops is drawn here, the rest is PEFT's."""
    weights, tensors = torch.tensor(list(WEIGHTS.values()), dtype=torch.float64), list(deltas.values())
    if method == "linear":
        return merge_utils.task_arithmetic(tensors, weights)
    function = getattr(merge_utils, method.replace("-", "_"))
    if method.startswith("dare"):
        tensors = [delta * masks.at_random(delta.shape, SETTINGS.density, SETTINGS.seed, name, lora) / SETTINGS.density
                   for lora, delta in zip(WEIGHTS, tensors)]
        return function(tensors, weights, 1.0)
    return function(tensors, weights, SETTINGS.density)


def _add(sums: list[float], found: Tensor, wanted: Tensor) -> None:
    sums[0] += float((found.double() - wanted).square().sum())
    sums[1] += float(wanted.square().sum())


def _relative(sums: dict[str, list[float]]) -> dict[str, float]:
    return {method: (lost / whole) ** 0.5 for method, (lost, whole) in sums.items()}
