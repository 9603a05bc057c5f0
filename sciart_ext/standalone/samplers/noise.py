"""The noise of a batch of pictures: each from its own seed, drawn on the CPU in the host's order."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor

from ...errors import SciArtError
from ...guidance.noises import noise_seed
from ...mixer.gates import sent

Draw = Callable[[float, float], Tensor]
"""(σ, the σ that follows) → unit noise (images, c, h, w)"""


class Noise:
    """seeds: one for each picture; shape: (c, h, w) of its latents; device: where noise is sent."""

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        self.seeds, self.shape, self.device = tuple(seeds), tuple(shape), torch.device(device)
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def next(self) -> Tensor:
        """Unit noise (images, c, h, w), float32; what the pictures begin with is drawn first."""
        return self._sent([torch.randn(self.shape, generator=generator) for generator in self._generators])

    def other(self, number: int) -> Tensor:
        """What the pictures begin with where that is another of each one's noises (`guidance.noises`), from 1 on."""
        return Noise([noise_seed(seed, number) for seed in self.seeds], self.shape, self.device).next()

    def draw(self, sigma: float, following: float) -> Tensor:
        """The next noise, at any level."""
        return self.next()

    def brownian(self, sigmas: Sequence[float]) -> Draw:
        """The increments of a Brownian motion in σ, each over the root of its variance: one motion for each seed, the
        same however finely it is looked at. Raises `SciArtError` where torchsde is missing."""
        if find_spec("torchsde") is None:
            raise SciArtError("sampler", 'SDE samplers need torchsde; pip install "sciart[standalone]"')
        least, largest = min(sigma for sigma in sigmas if sigma > 0), max(sigmas)

        @functools.lru_cache(maxsize=1)
        def motions() -> list[Callable[[float, float], Tensor]]:  # not where a single step adds no noise
            from torchsde import BrownianTree

            return [BrownianTree(least, torch.zeros(self.shape), largest, entropy=seed) for seed in self.seeds]

        def increment(sigma: float, following: float) -> Tensor:
            root = (sigma - following) ** 0.5
            return self._sent([-motion(following, sigma) / root for motion in motions()])

        return increment

    def _sent(self, drawn: list[Tensor]) -> Tensor:
        return sent(torch.stack(drawn), self.device)


@contextmanager
def quiet_sampling() -> Iterator[None]:
    """Without torchsde's warnings about rounding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Should have ta>=t0")
        warnings.filterwarnings("ignore", "Should have tb<=t1")
        yield
