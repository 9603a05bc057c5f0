"""Deltas that are not two thin factors: each is computed as a whole, ΔW, when it is needed.

Those that no low rank holds and that need nothing but the file: Hadamard products (LoHa), Kronecker products (LoKr) and
differences as they are. `relative.py` has those that need the model's weight too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from .low_rank import LowRank


@dataclass(frozen=True, eq=False)
class Dense:
    """A layer's delta as a whole. `shape` is (out, in[, kh, kw]) or (out, in·kh·kw); rank is 0 where there is none."""

    kind: ClassVar[str] = ""
    needs_weight: ClassVar[bool] = False
    """whether ΔW depends on the weight it is added to: on the model's own, whatever else is added there"""

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def rank(self) -> int:
        return 0

    @property
    def tensors(self) -> list[Tensor]:
        """All that the file holds of this layer."""
        values = vars(self).values()
        inner = [tensor for value in values if isinstance(value, (Dense, LowRank)) for tensor in value.tensors]
        return [value for value in values if isinstance(value, Tensor)] + inner

    def each(self, change: Callable[[Tensor], Tensor]) -> Dense:
        """The same with all its tensors changed: moved, or cast."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) if isinstance(value, Tensor) else value.each(change)
                   for name, value in values.items() if isinstance(value, (Tensor, Dense, LowRank))}
        return replace(self, **changed)

    def ready(self, dtype: torch.dtype) -> Dense:
        """The same, with that done once which the file alone decides and which takes a solver; ΔW is then computed in
        this precision."""
        return self

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can take it."""
        return self.shape[0] == shape[0] and math.prod(self.shape[1:]) == math.prod(shape[1:])

    def of(self, weight: Tensor) -> Tensor:
        """ΔW for this weight, in its shape and on its device, in float32 or wider."""
        raise NotImplementedError

    @property
    def factored_rank(self) -> int:
        """The rank of the exact factors that `factored` gives; 0 where it gives none."""
        return 0

    def factored(self) -> LowRank | None:
        """The same delta as two factors, exactly, where the file's own tensors give them without a decomposition."""
        return None

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        """The precision in which ΔW is computed for a weight of this one."""
        dtype = torch.promote_types(torch.float32, dtype if dtype.itemsize > 1 else torch.float32)
        for tensor in self.tensors:
            dtype = torch.promote_types(dtype, tensor.dtype)
        return dtype


@dataclass(frozen=True, eq=False)
class Difference(Dense):
    """What was fine-tuned as it is: ΔW = value. Of a weight, of a bias or of a norm (as LyCORIS' `full` and `norm`)."""

    value: Tensor
    kind: ClassVar[str] = "full differences"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def of(self, weight: Tensor) -> Tensor:
        return self.value.to(weight.device, self.wide(weight.dtype)).reshape(weight.shape)


class NormDifference(Difference):
    """Of the weight of a group or layer norm."""

    kind: ClassVar[str] = "norm differences"


class BiasDifference(Difference):
    """Of the bias of a layer of any kind, even of one that has none: the host gives it one, once, and then fails."""

    kind: ClassVar[str] = "biases"


@dataclass(frozen=True, eq=False)
class Hadamard(Dense):
    """LoHa: ΔW = scale · (w1a·w1b) ⊙ (w2a·w2b) (FedPara, arXiv 2108.06098, proposition 1).

    wXa: (out, rank), wXb: (rank, in·kh·kw); with a core tX (rank, rank, kh, kw) they are (rank, out) and (rank, in)
    and each half is Σ tX[i, j, k, l] · wXa[i, ·] · wXb[j, ·] (proposition 3).
    """

    w1a: Tensor
    w1b: Tensor
    w2a: Tensor
    w2b: Tensor
    t1: Tensor | None
    t2: Tensor | None
    scale: float
    kind: ClassVar[str] = "LoHa"

    @property
    def shape(self) -> tuple[int, ...]:
        a, b, core = (self.w1a, self.w1b, self.t1) if self.t1 is not None else (self.w2a, self.w2b, self.t2)
        if core is None:
            return (a.shape[0], *b.shape[1:])
        return (a.shape[1], b.shape[1], *core.shape[2:])

    @property
    def rank(self) -> int:
        return self.w1b.shape[0]

    def of(self, weight: Tensor) -> Tensor:
        dtype = self.wide(weight.dtype)
        first, second = (product(a.to(dtype), b.to(dtype), None if core is None else core.to(dtype)).flatten(1)
                         for a, b, core in ((self.w1a, self.w1b, self.t1), (self.w2a, self.w2b, self.t2)))
        return (first * second * self.scale).reshape(weight.shape)

    @property
    def factored_rank(self) -> int:
        return self.w1b.shape[0] * self.w2b.shape[0] if self.t1 is None and self.t2 is None else 0

    def factored(self) -> LowRank | None:
        """Columns of the one half times columns of the other: a product of ranks r₁ and r₂ has rank r₁·r₂."""
        if not self.factored_rank:
            return None
        w1a, w1b, w2a, w2b = (part.flatten(1).float() for part in (self.w1a, self.w1b, self.w2a, self.w2b))
        up = torch.einsum("or, os -> ors", w1a, w2a).flatten(1)
        return LowRank(torch.einsum("ri, si -> rsi", w1b, w2b).flatten(0, 1), up, self.scale)


@dataclass(frozen=True, eq=False)
class Kronecker(Dense):
    """LoKr: ΔW = scale · w1 ⊗ w2 (LyCORIS, arXiv 2309.14859, section 3.2).

    w1: (a, b) or a product w1a·w1b; w2: (c, d[, kh, kw]) or (c, d·kh·kw), a product w2a·w2b, or with the core t2
    (rank, rank, kh, kw) and w2a (rank, c), w2b (rank, d). ΔW is (a·c, b·d, kh, kw). scale is 1 where both are whole.
    """

    w1: Tensor | None
    w1a: Tensor | None
    w1b: Tensor | None
    w2: Tensor | None
    w2a: Tensor | None
    w2b: Tensor | None
    t2: Tensor | None
    scale: float
    kind: ClassVar[str] = "LoKr"

    @property
    def shape(self) -> tuple[int, ...]:
        a, b = self.w1.shape if self.w1 is not None else (self.w1a.shape[0], self.w1b.shape[1])
        if self.w2 is not None:
            c, d, *kernel = self.w2.shape
        elif self.t2 is not None:
            c, d, kernel = self.w2a.shape[1], self.w2b.shape[1], self.t2.shape[2:]
        else:
            c, d, *kernel = self.w2a.shape[0], *self.w2b.shape[1:]
        return (a * c, b * d, *kernel)

    @property
    def rank(self) -> int:
        return next((half.shape[0] for half in (self.w2b, self.w1b) if half is not None), 0)

    def of(self, weight: Tensor) -> Tensor:
        dtype = self.wide(weight.dtype)
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        w1, w1a, w1b, w2, w2a, w2b, t2 = (part if part is None else part.to(dtype) for name, part in parts.items()
                                          if name != "scale")
        first = w1 if w1 is not None else w1a @ w1b
        second = w2 if w2 is not None else product(w2a, w2b, t2)
        second = second.reshape(*second.shape[:2], -1)
        # [a, b] times [c, d, kernel] as (a, c, b, d, kernel): torch.kron would want kernels of one in the first
        whole = first[:, None, :, None, None] * (second * self.scale)[None, :, None]
        return whole.reshape(weight.shape)

    @property
    def factored_rank(self) -> int:
        halves = ((self.w1, self.w1b), (self.w2, self.w2b))
        return 0 if self.t2 is not None else math.prod(
            min(len(whole), whole[0].numel()) if whole is not None else len(b) for whole, b in halves)

    def factored(self) -> LowRank | None:
        """(w1a ⊗ w2a)·(w1b ⊗ w2b): the Kronecker product of products is the product of Kronecker products."""
        if not self.factored_rank:
            return None
        halves = [_split(whole) if whole is not None else (a.float(), b.float().flatten(1))
                  for whole, a, b in ((self.w1, self.w1a, self.w1b), (self.w2, self.w2a, self.w2b))]
        (w1a, w1b), (w2a, w2b) = halves
        return LowRank(torch.kron(w1b, w2b), torch.kron(w1a, w2a), self.scale)


def _split(whole: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as a product with the identity on its smaller side."""
    matrix = whole.float().flatten(1)
    if len(matrix) <= matrix.shape[1]:
        return torch.eye(len(matrix)), matrix
    return matrix, torch.eye(matrix.shape[1])


def product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """a·b, (out, rank) and (rank, …) → (out, …).

    With a core (i, j, kh, kw) of a (i, out) and b (j, in): (out, in, kh, kw).
    """
    if core is None:
        return (a.flatten(1) @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])
    return torch.einsum("ijkl, io, jn -> onkl", core, a, b)
