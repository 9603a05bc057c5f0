"""Where each LoRA's prediction counts: masks from attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compose.region import region_cells


def masks_from_attention(maps: Tensor, threshold: float) -> Tensor:
    """maps (…, subjects, h, w), not negative → bool, the same shape: where each subject is, no two at one place.

    Each map, smoothed and less its minimum, is taken as a share of its largest value. A place belongs to the subject
    with the largest share there, if that reaches `threshold`; a map without contrast covers nothing.
    """
    contrast = smoothed(maps)
    contrast = contrast - contrast.amin((-2, -1), keepdim=True)
    shares = contrast / contrast.amax((-2, -1), keepdim=True).clamp(min=1e-8)
    winner = shares.argmax(-3, keepdim=True)
    order = torch.arange(maps.shape[-3], device=maps.device).view(-1, 1, 1)
    return (shares >= threshold) & (shares > 0) & (order == winner)


def smoothed(maps: Tensor) -> Tensor:
    """(…, h, w) under the kernel 1 2 1 by 1 2 1, borders repeated."""
    kernel = torch.tensor([1.0, 2.0, 1.0], device=maps.device)
    padded = F.pad(maps.float().reshape(-1, 1, *maps.shape[-2:]), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, (kernel[:, None] * kernel / 16)[None, None]).view(maps.shape)


def told_by_boxes(maps: Tensor, boxes: Sequence[Sequence[float] | str | None], whole: bool) -> Tensor:
    """maps (images, subjects, h, w), where a subject with a box has that, as large as its map was at most, or, if it is
    not all over the box, its map inside of it."""
    told = [None if box is None else region_cells(box, tuple(maps.shape[-2:])).to(maps) for box in boxes]
    return torch.stack([one if box is None else box * (one.amax((-2, -1), keepdim=True) if whole else one)
                        for one, box in zip(maps.unbind(1), told)], 1)


def within_boxes(masks: Tensor, boxes: Sequence[Sequence[float] | str | None]) -> Tensor:
    """bool masks (images, subjects, h, w), of subjects with a box only what lies in it."""
    return torch.stack([mask if box is None else mask & region_cells(box, tuple(masks.shape[-2:])).to(masks.device)
                        for mask, box in zip(masks.unbind(1), boxes)], 1)


def with_boxes(masks: Tensor, boxes: Sequence[Sequence[float] | str | None]) -> Tensor:
    """bool masks (images, subjects, h, w), where subjects with a box have that instead, and the others keep out."""
    given = [None if box is None else region_cells(box, tuple(masks.shape[-2:])).to(masks.device) for box in boxes]
    taken = torch.stack([box for box in given if box is not None]).any(0) if any(boxes) else None
    return torch.stack([masks[:, k] if taken is None else masks[:, k] & ~taken if box is None
                        else box.expand(masks[:, k].shape) for k, box in enumerate(given)], 1)


def resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """bool masks (…, subjects, h, w) brought to the latent's (h, w) by nearest neighbour."""
    flat = masks.float().reshape(1, -1, *masks.shape[-2:])
    return F.interpolate(flat, size, mode="nearest").bool().view(*masks.shape[:-2], *size)
