"""Shapley shares: what each LoRA adds, averaged over all orders in which the LoRAs could have come (Shapley 1953).

A set of LoRAs is a number whose bit k tells whether LoRA k is in it: 0 is none, 2ⁿ − 1 all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import factorial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the command line asks which sets there are, before torch and scipy are needed
    from torch import Tensor

EXACT_UP_TO = 4
"""LoRAs: beyond, 2ⁿ pictures are too many"""


def exact_shares(values: Tensor) -> Tensor:
    """values (2ⁿ, …): of every set of n LoRAs, a picture, say, or a latent → shares (n, …), which sum to
    values[all] − values[none].

    φ_k = Σ_S |S|! (n − |S| − 1)! / n! · (v(S ∪ k) − v(S)), over the sets S without k. Raises ValueError where the
    number of values is no power of two.
    """
    import torch

    count = (len(values) - 1).bit_length()
    if len(values) != 1 << count:
        raise ValueError(f"expected a value of every set, 2ⁿ of them, got {len(values)}")
    values = values.double()
    shares = []
    for k in range(count):
        without = [s for s in range(1 << count) if not s >> k & 1]
        weights = values.new_tensor([factorial(_size(s)) * factorial(count - _size(s) - 1) for s in without])
        gains = values[[s | 1 << k for s in without]] - values[without]
        shares.append(torch.tensordot(weights / factorial(count), gains, 1))
    return torch.stack(shares) if shares else values[:0]


class Sampled(NamedTuple):
    """shares (n, …) and their errors (n, …), half widths of intervals of 95 % or more, over so many
    orders."""

    shares: Tensor
    errors: Tensor
    orders: int


def sampled_shares(value: Callable[[int], Tensor], orders: Sequence[Sequence[int]]) -> Sampled:
    """Shares estimated from some orders of the LoRAs (Castro et al. 2009): in each, what a LoRA adds when it comes;
    their errors by Student's t, as of independent orders.

    value(set) → (…); it is asked for each set once. They sum to value(all) − value(none), however few the orders.
    Raises ValueError with fewer than two orders: there is no error to state then.
    """
    import torch
    from scipy.special import stdtrit

    if len(orders) < 2:
        raise ValueError(f"expected two orders or more, got {len(orders)}")
    known: dict[int, Tensor] = {}
    count = len(orders[0])
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    for order in orders:
        gains = {}
        for before, after, k in steps_of(order):
            for needed in (before, after):
                if needed not in known:
                    known[needed] = value(needed).double()
            gains[k] = known[after] - known[before]
        stacked = torch.stack([gains[k] for k in range(count)])
        total, squares = total + stacked, squares + stacked.square()
    mean = total / len(orders)
    variance = (squares / len(orders) - mean.square()).clamp(min=0) * len(orders) / (len(orders) - 1)
    half_width = float(stdtrit(len(orders) - 1, 0.975))
    return Sampled(mean, half_width * (variance / len(orders)).sqrt(), len(orders))


def steps_of(order: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(set before, set after, the LoRA that came) along an order."""
    before = 0
    for k in order:
        yield before, before | 1 << k, k
        before |= 1 << k


def spread_orders(count: int, orders: int, seed: int) -> list[tuple[int, ...]]:
    """So many orders of so many LoRAs: random ones, of each its rotations, and of each of these its reverse.

    Every order is as likely as every other, so that the estimates have no bias; but each LoRA comes early, late and in
    between, and before each other as often as after it. So they err by a third less than independent orders' with three
    quarters of the pictures, and `sampled_shares`, which takes them for independent, states its error on the safe side
    (antithetic orders: Mitchell et al. 2022, arXiv 2104.12199; measured in benchmarks/explaining/sampled.py).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[int, ...]] = []
    while len(found) < orders:
        first = torch.randperm(count, generator=generator).tolist()
        rotations = min(count, (orders - len(found) + 1) // 2)
        for i in range(rotations):
            start = i * count // rotations
            order = (*first[start:], *first[:start])
            found += [order, order[::-1]]
    return found[:orders]


def sets_of(orders: Sequence[Sequence[int]]) -> list[int]:
    """The sets that these orders pass through, each once, small ones first."""
    found = {0} | {after for order in orders for _, after, _ in steps_of(order)}
    return sorted(found, key=lambda s: (_size(s), s))


def _size(a_set: int) -> int:
    return bin(a_set).count("1")
