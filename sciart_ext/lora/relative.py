"""Deltas that depend on the weight they are added to: DoRA, IA3, OFT, BOFT and GLoRA.

ΔW is always that of the model's own weight W, never of one that another LoRA has changed, and the gate λ multiplies ΔW:
so the order of LoRAs does not matter, and every gate means the same at every strength of the others. The host computes
them from the weight as its earlier networks left it, where the result depends on the order in the prompt; of one
network alone both are the same. LyCORIS' own multiplier (not 1) is not linear for DoRA and BOFT; at 1 all agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .dense import Dense
from .low_rank import LowRank


@dataclass(frozen=True, eq=False)
class Decomposed(Dense):
    """DoRA: ΔW = magnitude · (W + Δ) / ‖W + Δ‖ − W (arXiv 2402.09353, equation 5).

    axis: 0 where there is one magnitude and one norm for each output (the paper, PEFT, LyCORIS since 3), 1 where for
    each input channel (LyCORIS before). The host always takes the norms by input channel: of a file made by outputs,
    (out, 1), it multiplies these magnitudes with the wrong norms and its picture is not what was trained.
    """

    inner: LowRank | Dense
    magnitude: Tensor
    """(out,) or (in,)"""
    axis: int
    needs_weight: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return "DoRA" if isinstance(self.inner, LowRank) else f"DoRA of {self.inner.kind}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def rank(self) -> int:
        return self.inner.rank

    def fits(self, shape: Sequence[int]) -> bool:
        return super().fits(shape) and len(self.magnitude) == shape[self.axis]

    def of(self, weight: Tensor) -> Tensor:
        dtype = self.wide(weight.dtype)
        base = weight.to(dtype)
        changed = self.inner.of(weight).to(dtype).add_(base)
        others = [dim for dim in range(weight.dim()) if dim != self.axis]
        norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True).add_(torch.finfo(dtype).eps)
        return changed.mul_(_along(self.magnitude.to(dtype), self.axis, weight) / norms).sub_(base)


@dataclass(frozen=True, eq=False)
class Scaling(Dense):
    """IA3: ΔW = W · factor for each output (axis 0) or input channel (axis 1) (arXiv 2205.05638, section 3.3).

    Stored by LyCORIS as the difference from 1 (`weight`, `on_input`), by PEFT as the factor itself (`ia3_l`), which
    there scales a layer's bias too. The host reads LyCORIS' alone, and cannot scale the outputs of a convolution.
    """

    factor: Tensor
    axis: int
    kind: ClassVar[str] = "IA3"
    needs_weight: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.factor),)

    def fits(self, shape: Sequence[int]) -> bool:
        return self.axis < len(shape) and len(self.factor) == shape[self.axis]

    def of(self, weight: Tensor) -> Tensor:
        dtype = self.wide(weight.dtype)
        return weight.to(dtype) * _along(self.factor.to(dtype), self.axis, weight)


@dataclass(frozen=True, eq=False)
class Rotation(Dense):
    """OFT: ΔW = rescale · Rᵀ·W − W with R = (1 + Q)(1 − Q)⁻¹, Q = blocks − blocksᵀ, on blocks of outputs
    (arXiv 2306.07280, equation 4).

    blocks: (k, n, n), k·n outputs; constraint: the largest norm of all blocks' Q together, kohya's and LyCORIS'
    alpha · out, 0 for none (both, and the host, agree); direct: the blocks are R themselves (LyCORIS before 3,
    `oft_diag`).
    """

    blocks: Tensor
    alpha: float
    rescale: Tensor | None
    direct: bool
    kind: ClassVar[str] = "OFT"
    needs_weight: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.blocks.shape[-3] * self.blocks.shape[-1],)

    @property
    def rank(self) -> int:
        return 0

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) > 1 and self.shape[0] == shape[0]

    def ready(self, dtype: torch.dtype) -> Rotation:
        """With the blocks R themselves."""
        return self if self.direct else replace(self, blocks=self.rotations(dtype).contiguous(), direct=True)

    def rotations(self, dtype: torch.dtype) -> Tensor:
        """R of each block, (…, n, n)."""
        if self.direct:
            return self.blocks.to(dtype)
        return cayley(self.blocks.to(dtype), self.alpha * self.shape[0])

    def of(self, weight: Tensor) -> Tensor:
        base = weight.to(self.wide(weight.dtype))
        count, size = self.blocks.shape[-3], self.blocks.shape[-1]
        parts = base.reshape(count, size, -1)
        return self._rescaled(self.rotations(base.dtype).transpose(1, 2) @ parts, base)

    def _rescaled(self, turned: Tensor, base: Tensor) -> Tensor:
        turned = turned.reshape(base.shape)
        if self.rescale is not None:
            turned = turned * _along(self.rescale.to(base.dtype).flatten(), 0, base)
        return turned - base


class Butterfly(Rotation):
    """BOFT: OFT by several stages, between which outputs are mixed (arXiv 2311.06243, section 4).

    blocks: (m, k, n, n). Stage i takes outputs at a distance of 2^i·n/2 together.
    """

    kind: ClassVar[str] = "BOFT"

    def fits(self, shape: Sequence[int]) -> bool:
        stages, size = self.blocks.shape[0], self.blocks.shape[-1]
        return super().fits(shape) and shape[0] % (2**stages * (size // 2)) == 0

    def of(self, weight: Tensor) -> Tensor:
        base = weight.to(self.wide(weight.dtype))
        _, count, size, _ = self.blocks.shape
        turned = base.flatten(1)
        for i, stage in enumerate(self.rotations(base.dtype)):
            apart = 2**i * (size // 2)
            mixed = turned.unflatten(0, (-1, 2, apart)).transpose(1, 2).reshape(count, size, -1)
            turned = (stage @ mixed).reshape(-1, apart, 2, turned.shape[1]).transpose(1, 2).reshape(turned.shape)
        return self._rescaled(turned, base)


@dataclass(frozen=True, eq=False)
class Generalized(Dense):
    """GLoRA: ΔW = scale · (W·in1·in2 + out1·out2) (arXiv 2306.07967, equation 10, with its A and B).

    in1: (in, rank), in2: (rank, in), out1: (out, rank), out2: (rank, in·kh·kw). scale is alpha / rank as LyCORIS has
    it; the host leaves it away, and of the files that LyCORIS writes since 3 it multiplies the factors in the wrong
    order.
    """

    in1: Tensor
    in2: Tensor
    out1: Tensor
    out2: Tensor
    scale: float
    kind: ClassVar[str] = "GLoRA"
    needs_weight: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.out1.shape[0], *self.out2.shape[1:])

    @property
    def rank(self) -> int:
        return self.in1.shape[1]

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) > 1 and super().fits(shape) and len(self.in1) == shape[1]

    def of(self, weight: Tensor) -> Tensor:
        dtype = self.wide(weight.dtype)
        base = weight.to(dtype)
        # a product over the input channels, whatever follows them
        inputs = torch.einsum("oi..., ir, rj -> oj...", base, self.in1.to(dtype), self.in2.to(dtype))
        outputs = self.out1.to(dtype) @ self.out2.to(dtype).flatten(1)
        return (inputs + outputs.reshape(weight.shape)) * self.scale


def cayley(blocks: Tensor, limit: float) -> Tensor:
    """R = (1 + Q)(1 − Q)⁻¹ of each block (…, n, n), Q = B − Bᵀ.

    limit: the largest norm of all Q together; 0 for none.
    """
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = torch.linalg.vector_norm(skew)
        skew = skew * (norm.clamp(max=limit) / norm.clamp(min=1e-8))
    one = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    # (1 + Q) and (1 − Q)⁻¹ commute
    # (1 − Q) is never singular; a GPU would be waited for to check that it is not
    return torch.linalg.solve_ex(one - skew, one + skew)[0]


def _along(values: Tensor, axis: int, weight: Tensor) -> Tensor:
    return values.view([-1 if dim == axis else 1 for dim in range(weight.dim())])
