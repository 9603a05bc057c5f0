"""The host's schedule types: σ of each step, descending, then mostly 0. Pure functions of (steps, levels).

In single precision and in the host's order of operations: SDE samplers look at a Brownian motion at these σ, and are
given noise that differs where the last digit does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .levels import Exploding

KARRAS_RHO = 7.0
BETA = (0.6, 0.6)
"""the host's α and β of the Beta distribution"""
ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_XL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def sigmas_of(schedule: str, steps: int, levels: Exploding, is_xl: bool = False) -> list[float]:
    """σ by the name of a schedule type in `names.SCHEDULES`; is_xl: of an SDXL."""
    if schedule == "Align Your Steps":
        return aligned(steps, ALIGNED_XL if is_xl else ALIGNED)
    return _SCHEDULES[schedule](steps, levels)


def uniform(steps: int, levels: Exploding) -> list[float]:
    """Even in the model's time, from its last to its first."""
    return _then_0(levels.sigmas_at(torch.linspace(*_times(levels), steps)))


def sgm_uniform(steps: int, levels: Exploding) -> list[float]:
    """Even in time, with the first time in the place of no noise (Stability AI's generative models)."""
    return _then_0(levels.sigmas_at(torch.linspace(*_times(levels), steps + 1)[:-1]))


def karras(steps: int, levels: Exploding) -> list[float]:
    """Karras et al., arXiv 2206.00364, equation 5."""
    return karras_between(steps, levels.least, levels.largest)


def karras_between(steps: int, least: float, largest: float) -> list[float]:
    """Even in the ρth root of σ, from the largest to the least."""
    low, high = (sigma ** (1 / KARRAS_RHO) for sigma in (least, largest))
    return _then_0((high + torch.linspace(0, 1, steps) * (low - high)) ** KARRAS_RHO)


def exponential(steps: int, levels: Exploding) -> list[float]:
    """Even in log σ."""
    return _then_0(torch.linspace(math.log(levels.largest), math.log(levels.least), steps).exp())


def polyexponential(steps: int, levels: Exploding) -> list[float]:
    """A polynomial in log σ, in the host of degree 1."""
    low, high = math.log(levels.least), math.log(levels.largest)
    return _then_0((torch.linspace(1, 0, steps) * (high - low) + low).exp())


def kl_optimal(steps: int, levels: Exploding) -> list[float]:
    """Even in the arc tangent of σ down to the least one, which is not followed by 0 (Sabour et al., arXiv 2404.14507,
    theorem 3.1)."""
    low, high = (torch.tensor(sigma).arctan() for sigma in (levels.least, levels.largest))
    places = torch.arange(steps + 1) / steps
    return (places * low + (1 - places) * high).tan().tolist()


def aligned(steps: int, found: tuple[float, ...]) -> list[float]:
    """σ found for ten steps, log-linear between them (Sabour et al., arXiv 2404.14507). From its end, as the host
    interpolates: a single step has the least σ."""
    import numpy as np  # here: what runs with torch alone takes the loop and the other samplers

    ascending = np.log(found[::-1])
    places = np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(found)), ascending)
    return _then_0(torch.from_numpy(np.exp(places)[::-1].copy()))


def simple(steps: int, levels: Exploding) -> list[float]:
    """Every so many of the σ that the model was trained on, from its last."""
    apart = len(levels.sigmas) / steps
    return _then_0(levels.sigmas[[-1 - int(step * apart) for step in range(steps)]])


def ddim(steps: int, levels: Exploding) -> list[float]:
    """As DDIM spaces its times: a whole number apart, from the second; may be more than the steps."""
    return _then_0(levels.sigmas[1::max(len(levels.sigmas) // steps, 1)].flip(0))


def beta(steps: int, levels: Exploding) -> list[float]:
    """Quantiles of a Beta distribution (Lee et al., arXiv 2407.12173), as the host takes them: of σ, not of time."""
    import numpy as np
    from scipy import stats

    places = stats.beta.ppf(1 - np.linspace(0, 1, steps), *BETA)
    return _then_0(torch.from_numpy(levels.least + places * (levels.largest - levels.least)))


def _then_0(sigmas: Tensor) -> list[float]:
    return [*sigmas.float().tolist(), 0.0]


def _times(levels: Exploding) -> tuple[float, float]:
    return levels.time(levels.largest), levels.time(levels.least)


_SCHEDULES = {
    "Automatic": uniform, "Uniform": uniform, "Karras": karras, "Exponential": exponential,
    "Polyexponential": polyexponential, "SGM Uniform": sgm_uniform, "KL Optimal": kl_optimal, "Simple": simple,
    "Normal": uniform, "DDIM": ddim, "Beta": beta,
}
