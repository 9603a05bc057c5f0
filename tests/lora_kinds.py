"""A delta of each kind for a weight of any shape, filled with random numbers."""

from __future__ import annotations

import math

import torch

from sciart_ext.lora.dense import BiasDifference, Difference, Hadamard, Kronecker, NormDifference
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.lora.relative import Butterfly, Decomposed, Generalized, Rotation, Scaling


def _low_rank(random, out, inputs, kernel, rank=2):
    down = random(rank, inputs, *kernel)
    return LowRank(down, random(out, rank, *[1] * len(kernel)), 0.7 / math.sqrt(rank))


def _hadamard(random, out, inputs, kernel, rank=2):
    size = inputs * math.prod(kernel)
    return Hadamard(random(out, rank), random(rank, size), random(out, rank), random(rank, size), None, None, 1.5)


def _hadamard_core(random, out, inputs, kernel):
    kernel, rank = kernel or (1, 1), 3
    cores = [random(rank, rank, *kernel) for _ in range(2)]
    return Hadamard(random(rank, out), random(rank, inputs), random(rank, out), random(rank, inputs), *cores, 1.0)


def _kronecker(random, out, inputs, kernel):
    w1 = random(2, 2)
    return Kronecker(w1, None, None, None, random(out // 2, 3), random(3, inputs // 2 * math.prod(kernel)), None, 1.5)


def _decomposed(axis, inner=_low_rank):
    def build(random, out, inputs, kernel):
        # norms of the tiny models' rows are about 1
        magnitude = 1.0 + 0.4 * random((out, inputs)[axis])
        return Decomposed(inner(random, out, inputs, kernel), magnitude, axis)

    return build


def _scaling(axis):
    return lambda random, out, inputs, kernel: Scaling(random((out, inputs)[axis]), axis)


def _rotation(random, out, inputs, kernel):
    return Rotation(random(out // 4, 4, 4), 0.0, 1.0 + 0.5 * random(out, *[1] * (1 + len(kernel))), direct=False)


def _butterfly(random, out, inputs, kernel):
    stages = 2 if out % 8 == 0 else 1
    return Butterfly(random(stages, out // 4, 4, 4), 0.2, None, direct=False)


def _generalized(random, out, inputs, kernel):
    return Generalized(random(inputs, 2), random(2, inputs), random(out, 2), random(2, inputs * math.prod(kernel)), 0.8)


MATRICES = {
    "thin factors": _low_rank, "loha of a low rank": lambda *shape: _hadamard(*shape, rank=1),
    "loha": lambda *shape: _hadamard(*shape, rank=6), "loha with cores": _hadamard_core, "lokr": _kronecker,
    "full": lambda random, out, inputs, kernel: Difference(random(out, inputs, *kernel)),
    "dora by outputs": _decomposed(0), "dora by inputs": _decomposed(1), "dora of loha": _decomposed(0, _hadamard),
    "ia3 by outputs": _scaling(0), "ia3 by inputs": _scaling(1), "oft": _rotation, "boft": _butterfly,
    "glora": _generalized,
}
NEED_THE_WEIGHT = {"dora by outputs", "dora by inputs", "dora of loha", "ia3 by outputs", "ia3 by inputs", "oft",
                   "boft", "glora"}


def delta_of_kind(kind, shape, seed=0, dtype=torch.float32, size=0.5):
    """Of a matrix (out, in) or kernels (out, in, kh, kw)."""
    generator = torch.Generator().manual_seed(seed)
    out, inputs, *kernel = shape

    def random(*shape):
        return (size * torch.randn(*shape, generator=generator)).to(dtype)

    return MATRICES[kind](random, out, inputs, tuple(kernel))


def bias_delta(size, seed=0, dtype=torch.float32):
    return BiasDifference((0.5 * torch.randn(size, generator=torch.Generator().manual_seed(seed))).to(dtype))


def norm_delta(size, seed=0, dtype=torch.float32):
    return NormDifference(bias_delta(size, seed, dtype).value)
