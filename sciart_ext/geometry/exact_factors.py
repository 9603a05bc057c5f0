"""The deltas of any kind as two factors, exactly, so that the geometry of thin factors holds for them.

LoHa, LoKr and full differences are products with factors of higher rank than the file's, or with the identity; the
larger the rank, the longer it takes. What depends on the model's weight has no delta without a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import SciArtError
from ..lora.file import LoraFile
from ..lora.kinds import BIAS, Delta
from ..lora.low_rank import LowRank


def check_comparable(loras: Sequence[LoraFile]) -> None:
    """Raises `SciArtError` for a LoRA whose change depends on the model, or that changes no weights of layers."""
    for i, lora in enumerate(loras):
        kinds = {delta.kind for delta in lora.layers.values() if not isinstance(delta, LowRank) and delta.needs_weight}
        if kinds:
            told = ", ".join(sorted(kinds))
            raise SciArtError(f"loras[{i}]", f"{lora.name} is {told}: what it changes depends on the model; geometry "
                                             "compares LoRA, LoCon, LoHa, LoKr and full differences")
        if not any(has_directions(name, delta) for name, delta in lora.layers.items()):
            raise SciArtError(f"loras[{i}]", f"{lora.name} is {lora.kind}: it changes no weights of layers")


def has_directions(name: str, delta: Delta) -> bool:
    """Whether the delta is one of a matrix or of kernels; biases and norms have no directions."""
    return not name.endswith(BIAS) and len(delta.shape) > 1


def factors_rank(delta: Delta) -> int:
    """The rank of `exact_factors`."""
    if isinstance(delta, LowRank):
        return delta.rank
    return delta.factored_rank or min(delta.shape[0], torch.Size(delta.shape[1:]).numel())


def exact_factors(delta: Delta) -> LowRank:
    """up and down whose product is the delta."""
    if isinstance(delta, LowRank):
        return delta
    if delta.factored_rank:
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
