"""Subjects whose attention is alike, as that of two of a kind is: each gets one of the places that they share."""

from __future__ import annotations

import torch
from torch import Tensor

from .loss import cosines
from .masks import smoothed

ALIKE = 0.95
"""cosine of maps from which they are alike: two rockets' have 0.98 to 1.00, a rocket's and a robot's 0.5 to 0.94"""
SEEN_FROM = 0.3
"""share of the largest attention from which a place is one of theirs"""
ROUNDS = 10


def separated(maps: Tensor) -> tuple[Tensor, Tensor]:
    """maps (images, subjects, h, w), not negative → the same, where those that are alike keep to places of their own;
    and which those are: bool (images, subjects).

    The attention that alike maps share is cut into as many places as there are subjects; each of the subjects, in the
    order of how much of its attention lies in a place, takes the one it prefers among those that are left. Outside of
    it its map is at its least.
    """
    result = [_of_image(image) for image in maps]
    return torch.stack([image for image, _ in result]), torch.stack([alike for _, alike in result])


def _of_image(maps: Tensor) -> tuple[Tensor, Tensor]:
    similar = cosines(smoothed(maps).flatten(-2)) >= ALIKE
    result = maps.clone()
    alike = torch.zeros(len(maps), dtype=torch.bool, device=maps.device)
    left = set(range(len(maps)))
    while left:
        first = min(left)
        group = [k for k in sorted(left) if k == first or similar[first, k]]
        left -= set(group)
        if len(group) > 1:
            result[group] = _in_places(maps[group])
            alike[group] = True
    return result, alike


def _in_places(maps: Tensor) -> Tensor:
    labels = places(smoothed(maps).mean(0), len(maps))
    inside = torch.stack([labels == place for place in range(len(maps))])
    shares = torch.einsum("shw,phw->sp", maps.float(), inside.float())
    shares /= shares.sum(1, keepdim=True).clamp(min=1e-8)
    result = maps.clone()
    for _ in maps:
        subject, place = divmod(int(shares.argmax()), len(maps))
        shares[subject], shares[:, place] = -1, -1
        result[subject] = torch.where(inside[place], maps[subject], maps[subject].amin())
    return result


def peaks(attention: Tensor) -> Tensor:
    """attention (…, h, w) → the same, float32: how far each place's contrast is above `SEEN_FROM` of the largest."""
    contrast = attention.float() - attention.amin((-2, -1), keepdim=True)
    return (contrast - SEEN_FROM * contrast.amax((-2, -1), keepdim=True)).clamp(min=0)


def places(attention: Tensor, count: int) -> Tensor:
    """attention (h, w) → which of so many places each pixel belongs to, 0-based (h, w): the nearest.

    k-means of the pixels, weighted by their attention above `SEEN_FROM` (Lloyd, Least Squares Quantization in PCM); it
    begins at the strongest pixel and goes on with those that are strong and far from the ones before.
    """
    weights = peaks(attention).flatten()
    height, width = attention.shape
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(weights)
    centres = pixels[weights.argmax()][None]
    while len(centres) < count:
        far = (torch.cdist(pixels, centres).amin(1).square() * weights).argmax()
        centres = torch.cat([centres, pixels[far][None]])
    for _ in range(ROUNDS):
        member = torch.cdist(pixels, centres).argmin(1)[:, None] == torch.arange(count, device=weights.device)
        share = member * weights[:, None]
        centres = torch.where(share.sum(0)[:, None] > 0, share.T @ pixels / share.sum(0)[:, None].clamp(min=1e-8),
                              centres)
    return torch.cdist(pixels, centres).argmin(1).view(height, width)
