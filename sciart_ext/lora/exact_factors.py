"""The deltas of any kind as two factors, exactly: what holds for thin factors (geometry, combining) holds for them too.

LoHa, LoKr and full differences are products with factors of higher rank than the file's, or with the identity; the
larger the rank, the longer it takes. What depends on the model's weight has no delta without a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .kinds import BIAS, Delta
from .low_rank import LowRank


def needs_model(delta: Delta) -> bool:
    """Whether ΔW depends on the weight that it is added to."""
    return not isinstance(delta, LowRank) and delta.needs_weight


def has_directions(name: str, delta: Delta) -> bool:
    """Whether the delta is one of a matrix or of kernels; biases and norms have no directions."""
    return not name.endswith(BIAS) and len(delta.shape) > 1


def factors_rank(delta: Delta) -> int:
    """The rank of `exact_factors`."""
    if isinstance(delta, LowRank):
        return delta.rank
    whole = min(delta.shape[0], math.prod(delta.shape[1:]))
    return delta.factored_rank if 0 < delta.factored_rank <= whole else whole


def exact_factors(delta: Delta) -> LowRank:
    """up and down whose product is the delta."""
    if isinstance(delta, LowRank):
        return delta
    if 0 < delta.factored_rank <= min(delta.shape[0], math.prod(delta.shape[1:])):
        return _shaped(delta.factored(), delta.shape)
    dense = delta.of(torch.empty(delta.shape)).flatten(1)
    out, inputs = dense.shape
    factors = LowRank(dense, torch.eye(out), 1.0) if out <= inputs else LowRank(torch.eye(inputs), dense, 1.0)
    return _shaped(factors, delta.shape)


def _shaped(factors: LowRank, shape: Sequence[int]) -> LowRank:
    """With the kernel in down, as files of convolutions have it."""
    if len(shape) != 4:
        return factors
    return LowRank(factors.down.reshape(-1, *shape[1:]), factors.up[:, :, None, None], factors.scale)
