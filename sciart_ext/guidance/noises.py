"""Which of several noises a picture begins with: the one in which the look ahead sees its subjects farthest apart.

InitNO (arXiv 2404.04650) scores a noise by the attention of the first step. Measured here that tells less of what will
be there than how far apart the look ahead's attention lies (`python -m benchmarks.noises`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .alike import peaks
from .masks import smoothed

OtherNoise = Callable[[int], Tensor]
"""number, from 1 on → the latents (images, c, h, w) that begin with that one of each image's noises"""
NOT_CHOSEN = ("guidance.noises: no effect here; there is a choice only where a picture begins with the noise of its "
              "seed and has two subjects or more, not all of them with regions")
_APART = 2_654_435_761
"""2³² over the golden ratio: far from seed + 1 and so on, which the next pictures of a batch have"""


@dataclass
class SharedNoise:
    """For pictures of one seed that are compared: all begin with the noise that the first of them has chosen."""

    number: int | None = None
    """None until one was chosen"""


def label(number: int, noises: int) -> str:
    """For the infotext: `2 of 4`, counted from 1."""
    return f"{number + 1} of {noises}"


def noise_seed(seed: int, number: int) -> int:
    """The seed of one of the noises of a picture; number 0: its own."""
    return (seed + number * _APART) % 2**32 if number else seed


def least_distance(attention: Tensor) -> Tensor:
    """How far apart the two nearest subjects of each image are: attention (images, subjects, h, w) → (images,), in
    cells of its grid; of a single subject 0.

    A subject is at the centre of what stands out of its smoothed attention (`alike.peaks`).
    """
    count, height, width = attention.shape[1:]
    if count == 1:
        return torch.zeros(len(attention))
    weights = peaks(smoothed(attention)).flatten(2)
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(weights)
    centres = weights @ places / weights.sum(2, keepdim=True).clamp(min=1e-8)
    first, second = torch.triu_indices(count, count, 1)
    return (centres[:, first] - centres[:, second]).norm(dim=2).amin(1)


def as_large(unit: Tensor, other: Tensor, latents: Tensor) -> Tensor:
    """Other noise (images, c, h, w), each image's as large as its latents are beside the unit noise they are."""
    size = latents.flatten(1).norm(dim=1) / unit.flatten(1).norm(dim=1)
    return other * size.view(-1, 1, 1, 1)


class Glimpse(NamedTuple):
    """What a look ahead saw of each image, all tensors in main memory."""

    attention: Tensor
    """(images, subjects, h, w), where alike subjects keep to places of their own"""
    alike: Tensor
    """bool (images, subjects): which subjects are like another"""
    apart: Tensor
    """(images,): `least_distance`"""
    noise: Tensor
    """(images,): the number of the noise"""

    def or_farther_apart(self, other: Glimpse) -> Glimpse:
        """Of each image the one in which its subjects are farther apart."""
        better = other.apart > self.apart
        return Glimpse(*(torch.where(better.view(-1, *[1] * (mine.dim() - 1)), its, mine)
                         for mine, its in zip(self, other)))
