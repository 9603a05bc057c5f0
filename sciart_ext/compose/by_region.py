"""Each LoRA with a region counts there and nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..mixer.gates import sent
from .fusion import Fusion, Weights, fusion_weights
from .region import region_mask


class ByRegion(Fusion):
    """The first pair of rows is what no region covers, each other one a region's; where regions overlap they share.

    regions: boxes or compact mask pictures; feather: width of their edges, as a share of the picture's shorter side.
    """

    def __init__(self, regions: Sequence[Sequence[float] | str], feather: float = 0.0):
        self.regions = regions
        self.feather = feather
        self._made = functools.lru_cache(maxsize=2)(self._weights)

    def weights(self, cond: Tensor, progress: float, noise: Callable[[Tensor], Tensor]) -> Weights:
        return self._made(tuple(cond.shape[-2:]), cond.device, cond.dtype)

    def _weights(self, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Weights:
        weights = sent(region_weights(self.regions, size, self.feather)[None].to(dtype), device)
        return Weights(weights, weights)


def region_weights(regions: Sequence[Sequence[float] | str], size: tuple[int, int], feather: float) -> Tensor:
    """How much each cell (h, w) has of what no region covers, and of each region: (1 + regions, h, w), which sum to 1.
    """
    return fusion_weights(torch.stack([region_mask(region, size, feather) for region in regions]))
