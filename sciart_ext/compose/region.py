"""A region of the picture, a box or a mask picture, on the latent's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def region_mask(region: Sequence[float] | str, size: tuple[int, int], feather: float = 0.0) -> Tensor:
    """How much of each cell (h, w) the region has, 0 to 1.

    region: a box or a compact mask picture, which is spread over the whole picture; feather: `feathered`'s.
    """
    if isinstance(region, str):
        from ..recipe.mask_picture import mask_values

        given = torch.from_numpy(mask_values(region).copy())[None, None]
        shrunk = F.adaptive_avg_pool2d(given, tuple(map(min, size, given.shape[-2:])))
        mask = F.interpolate(shrunk, size, mode="bilinear")[0, 0]
    else:
        mask = box_mask(region, size).float()
    return feathered(mask, feather)


def region_cells(region: Sequence[float] | str, size: tuple[int, int]) -> Tensor:
    """bool (h, w): the cells of which at least half is in the region; of a fainter one, those that have most of it."""
    mask = region_mask(region, size)
    return mask >= mask.max().clamp(max=0.5)


def box_mask(box: Sequence[float], size: tuple[int, int]) -> Tensor:
    """box x0 y0 x1 y1, shares of the picture → bool (h, w): the cells whose middle lies in it, at least one."""
    height, width = size
    x0, y0, x1, y1 = box
    columns = _inside(x0, x1, width)
    rows = _inside(y0, y1, height)
    return rows[:, None] & columns[None]


def _inside(low: float, high: float, count: int) -> Tensor:
    middles = (torch.arange(count) + 0.5) / count
    inside = (middles >= low) & (middles < high)
    inside[min(int((low + high) / 2 * count), count - 1)] = True
    return inside


def feathered(mask: Tensor, share: float) -> Tensor:
    """mask (h, w) whose sharp edges become straight ramps, so wide a share of its shorter side; borders are repeated.

    A moving mean: neighbours that touch still sum to 1.
    """
    width = share * min(mask.shape)
    if width <= 1:
        return mask
    reach = math.ceil((width - 1) / 2)
    kernel = ((width + 1) / 2 - torch.arange(-reach, reach + 1).abs()).clamp(0, 1)
    kernel = (kernel / kernel.sum()).to(mask)
    padded = F.pad(mask[None, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]
