"""The delta of two thin factors: LoRA, and LoCon with its kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch


class LowRank(NamedTuple):
    """One layer's delta, ΔW = scale · up · down.

    down: (rank, in) or, for a convolution, (rank, in, kh, kw); up: (out, rank) or (out, rank, 1, 1);
    scale: alpha / rank, 1 without alpha, or the file's own `.scale` (LoRA paper, arXiv 2106.09685, section 4.1).
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def kind(self) -> str:
        return "LoCon" if self.down.dim() == 4 and tuple(self.down.shape[2:]) != (1, 1) else "LoRA"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of ΔW: (out, in[, kh, kw])."""
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.down, self.up]

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> LowRank:
        """The same with both factors changed: moved, or cast."""
        return LowRank(change(self.down), change(self.up), self.scale)

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """ΔW in the shape of this weight, in float32 or wider."""
        dtype = torch.promote_types(torch.promote_types(self.down.dtype, self.up.dtype), torch.float32)
        return (self.scale * self.up.flatten(1).to(dtype) @ self.down.flatten(1).to(dtype)).reshape(weight.shape)

    def factored(self) -> LowRank:
        return self


class Tucker(LowRank):
    """A LoCon with a core between its factors, which is folded into down: that changes nothing (LyCORIS, arXiv
    2309.14859, section 3.2).

    inner: (rank, in) or (rank, in, 1, 1); core: (rank, rank, kh, kw). What they fold to is up to kh·kw times as large
    as inner; it is made when it is first needed, for a layer that it fits.
    """

    inner: torch.Tensor
    core: torch.Tensor

    def __new__(cls, inner: torch.Tensor, core: torch.Tensor, up: torch.Tensor, scale: float) -> Tucker:
        made = super().__new__(cls, inner, up, scale)
        made.inner, made.core = inner, core
        return made

    @functools.cached_property
    def down(self) -> torch.Tensor:
        return torch.einsum("nmkl, mj -> njkl", self.core.float(), self.inner.flatten(1).float())

    @property
    def rank(self) -> int:
        return self.core.shape[0]

    @property
    def kind(self) -> str:
        return "LoCon" if tuple(self.core.shape[2:]) != (1, 1) else "LoRA"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.up.shape[0], self.inner.shape[1], *self.core.shape[2:])

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.inner, self.core, self.up]

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> LowRank:
        return Tucker(change(self.inner), change(self.core), change(self.up), self.scale)
