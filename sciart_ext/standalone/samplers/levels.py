"""What a level of noise means to a model: its time, how its input is scaled, what its prediction says.

Two kinds of latents: variance exploding, x = x₀ + σ·ε, of which samplers are sent x₀ (Karras et al., arXiv 2206.00364),
and variance preserving, x = √ᾱ·x₀ + √(1 − ᾱ)·ε, of which they are sent ε (Ho et al., arXiv 2006.11239).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...errors import SciArtError
from .names import TRAINED_TIMES

ZERO_TERMINAL_ALPHA = 4.8973451890853435e-08
"""of models that were trained down to no signal at all: the host's least ᾱ, with which σ is finite"""


class Predicted(NamedTuple):
    """A model's prediction (images, c, h, w): with classifier-free guidance, and for the negative prompt."""

    guided: Tensor
    uncond: Tensor


class Model:
    """The noise levels that a model was trained on, σ = √((1 − ᾱ) / ᾱ), ascending, and what it predicts.

    alphas: cumulative ᾱ of each time; prediction: diffusers' name; is_xl: whether it is an SDXL.
    """

    def __init__(self, alphas: Tensor, prediction: str = "epsilon", is_xl: bool = False):
        if prediction not in ("epsilon", "v_prediction"):
            raise SciArtError("model", f"predicts {prediction!r}; accepted: epsilon, v_prediction")
        self.alphas = alphas.float().cpu().clamp_min(ZERO_TERMINAL_ALPHA)
        self.is_v = prediction == "v_prediction"
        self.is_xl = is_xl

    @classmethod
    def of(cls, pipe) -> Model:
        """A pipeline's. ᾱ is multiplied in double precision, as the host does it, where diffusers does not."""
        config = pipe.scheduler.config
        power = {"linear": 1, "scaled_linear": 2}.get(config.beta_schedule)
        alphas = pipe.scheduler.alphas_cumprod
        if power and config.trained_betas is None and not config.get("rescale_betas_zero_snr"):
            alphas = trained_alphas(config.beta_start, config.beta_end, power, len(alphas))
        return cls(alphas, config.prediction_type, getattr(pipe, "text_encoder_2", None) is not None)


def trained_alphas(start: float = 0.00085, end: float = 0.012, power: int = 2, times: int = TRAINED_TIMES) -> Tensor:
    """Cumulative ᾱ = Π (1 − β) of each time (times,), float64: β even in its root of this power; by default Stable
    Diffusion's."""
    roots = torch.linspace(start ** (1 / power), end ** (1 / power), times, dtype=torch.float64)
    return (1 - roots**power).cumprod(0)


class Levels(Protocol):
    """The levels of a kind of latents: numbers that a sampler yields with them."""

    def time(self, level: float) -> float:
        """The model's time, which may lie between two that it was trained on."""

    def trained(self, level: float) -> int:
        """The time that it was trained on which is nearest, as the host finds it."""

    def scale(self, level: float) -> float:
        """Of the model's input, over the latents."""

    def found(self, predicted: Predicted, latents: Tensor, level: float) -> object:
        """What the sampler is sent."""


class Exploding:
    """σ of variance exploding latents; the sampler is sent x₀. sigmas: of the model, ascending, float32."""

    def __init__(self, model: Model):
        self.is_v = model.is_v
        self.sigmas = ((1 - model.alphas) / model.alphas).sqrt()
        self.first, self.apart = 0, 1
        """the time of the first, and how far apart in time they are"""
        self._logs = self.sigmas.log()

    @property
    def least(self) -> float:
        return float(self.sigmas[0])

    @property
    def largest(self) -> float:
        return float(self.sigmas[-1])

    def time(self, level: float) -> float:
        """Linear in log σ between times."""
        log = float(torch.tensor(level).log())
        below = min(max(int(torch.searchsorted(self._logs, log, right=True)) - 1, 0), len(self._logs) - 2)
        low, high = self._logs[below:below + 2].tolist()
        return self.first + self.apart * (below + min(max((log - low) / (high - low), 0.0), 1.0))

    def sigmas_at(self, times: Tensor) -> Tensor:
        """The inverse of `time` (n,)."""
        places = ((times - self.first) / self.apart).clamp(0, len(self.sigmas) - 1)
        return self._logs[places.floor().long()].lerp(self._logs[places.ceil().long()], places.frac()).exp()

    def trained(self, level: float) -> int:
        return int((self.sigmas - level).abs().argmin())

    def scale(self, level: float) -> float:
        return (level**2 + 1) ** -0.5

    def found(self, predicted: Predicted, latents: Tensor, level: float) -> Tensor:
        if self.is_v:  # Salimans and Ho, arXiv 2202.00512
            return latents / (level**2 + 1) - predicted.guided * (level * self.scale(level))
        return latents - predicted.guided * level


class Consistency(Exploding):
    """σ at every 20th time, to which a latent consistency model was distilled (Luo et al., arXiv 2310.04378)."""

    SKIPPED, SIGMA_DATA, TIME_SCALE = TRAINED_TIMES // 50, 0.5, 10.0

    def __init__(self, model: Model):
        super().__init__(model)
        self.first, self.apart = self.SKIPPED - 1, self.SKIPPED
        self.sigmas = self.sigmas[self.first::self.apart]
        self._logs = self.sigmas.log()

    def time(self, level: float) -> float:
        """The nearest by log σ: between two it was not distilled."""
        return float(self.first + self.apart * int((self._logs - torch.tensor(level).log()).abs().argmin()))

    def trained(self, level: float) -> int:
        return int(self.time(level))

    def found(self, predicted: Predicted, latents: Tensor, level: float) -> Tensor:
        """The consistency function, of which c_skip is the part of its input (appendix C)."""
        time = self.time(level) * self.TIME_SCALE
        skip = self.SIGMA_DATA**2 / (time**2 + self.SIGMA_DATA**2)
        out = time / (time**2 + self.SIGMA_DATA**2) ** 0.5
        return out * super().found(predicted, latents, level) + skip * latents


class Preserving:
    """The model's time as the level of variance preserving latents; the sampler is sent ε."""

    def __init__(self, model: Model):
        self.is_v, self.alphas = model.is_v, model.alphas

    def time(self, level: float) -> float:
        return level

    def trained(self, level: float) -> int:
        return int(level)

    def scale(self, level: float) -> float:
        return 1.0

    def found(self, predicted: Predicted, latents: Tensor, level: float) -> Tensor:
        return self._noise(predicted.guided, latents, level)

    def _noise(self, prediction: Tensor, latents: Tensor, level: float) -> Tensor:
        """Between times the host takes the ᾱ of the one before."""
        if not self.is_v:
            return prediction
        alpha = float(self.alphas[int(level)])
        return alpha**0.5 * prediction + (1 - alpha) ** 0.5 * latents


class PlusPlus(Preserving):
    """As CFG++ wants it (Chung et al., arXiv 2406.08070): the sampler is sent ε with guidance, and ε without prompt."""

    def found(self, predicted: Predicted, latents: Tensor, level: float) -> tuple[Tensor, Tensor]:
        return tuple(self._noise(one, latents, level) for one in predicted)
