"""The host's sampler and scheduler names as diffusers schedulers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from torch import Tensor

from ..errors import SciArtError, did_you_mean, shown

# The host's k-diffusion samplers run from the model's last timestep to its first, both included.
_K_DIFFUSION = {"timestep_spacing": "linspace"}
# name: class in diffusers, its settings, the schedule that the host means by "Automatic"
SAMPLERS = {
    "Euler": ("EulerDiscreteScheduler", _K_DIFFUSION, "uniform"),
    "Euler a": ("EulerAncestralDiscreteScheduler", _K_DIFFUSION, "uniform"),
    "DPM++ 2M": ("DPMSolverMultistepScheduler",
                 {**_K_DIFFUSION, "algorithm_type": "dpmsolver++", "solver_order": 2}, "karras"),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler",
                     {**_K_DIFFUSION, "algorithm_type": "sde-dpmsolver++", "solver_order": 2}, "exponential"),
    "DPM++ SDE": ("DPMSolverSDEScheduler", _K_DIFFUSION, "karras"),
    "Heun": ("HeunDiscreteScheduler", _K_DIFFUSION, "uniform"),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, "uniform"),
    "UniPC": ("UniPCMultistepScheduler", {}, "uniform"),
}
SCHEDULES = ("Automatic", "Uniform", "Karras", "Exponential")
_ONLY_UNIFORM = ("Euler a", "DDIM")


def make_scheduler(sampler: str, schedule: str, config: dict, seed: int | list[int]):
    """The diffusers scheduler for the host's names, for a model whose scheduler has this `config`.

    seed: for samplers that draw noise of their own; a list: of each picture of a batch. The schedule may also stand at
    the end of the sampler's name, as in `DPM++ 2M Karras`.
    """
    import diffusers

    sampler, schedule = _split(sampler, schedule)
    class_name, settings, automatic = SAMPLERS[sampler]
    schedule = automatic if schedule == "Automatic" else schedule.lower()
    settings = dict(settings)
    if schedule != "uniform" and sampler in _ONLY_UNIFORM:
        raise SciArtError("scheduler", f"{schedule.capitalize()} is not available for {sampler}; accepted: Automatic, "
                                       "Uniform")
    if sampler not in _ONLY_UNIFORM:
        settings.update(use_karras_sigmas=schedule == "karras", use_exponential_sigmas=schedule == "exponential")
    if sampler == "DPM++ SDE":
        if find_spec("torchsde") is None:
            raise SciArtError("sampler", 'DPM++ SDE needs torchsde; pip install "sciart[standalone]"')
        settings["noise_sampler_seed"] = seed
    return getattr(diffusers, class_name).from_config(config, **settings)


def start(scheduler, steps: int, latents: Tensor) -> None:
    """Sets the scheduler's steps, on the CPU, where asking for them keeps no device waiting. Noise of the scheduler's
    own is drawn on the CPU too, as the host draws it: the same whatever device the latents are on."""
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "noise_sampler"):
        from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

        sigmas = scheduler.sigmas[scheduler.sigmas > 0]
        drawn = BrownianTreeNoiseSampler(latents.cpu(), sigmas.min().item(), sigmas.max().item(),
                                         scheduler.noise_sampler_seed)
        scheduler.noise_sampler = lambda sigma, sigma_next: drawn(sigma, sigma_next).to(latents.device)


@contextmanager
def quiet_sampling() -> Iterator[None]:
    """Without torchsde's warnings about rounding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Should have ta>=t0")
        yield


def sampler_step(evaluation: int, order: int) -> int:
    """The sampler's step that a model evaluation (0-based) belongs to.

    Schedulers of order 2 evaluate twice in a step, but once in the last one.
    """
    return evaluation // order


def alpha_at(alphas: Tensor, time: float) -> float:
    """The cumulative α at a training time, which schedules by noise level put between two: linear in log σ there."""
    below = min(int(time), len(alphas) - 2)
    first, second = (math.log((1 - alpha) / alpha) for alpha in alphas[below:below + 2].tolist())
    return 1 / (1 + math.exp(first + (time - below) * (second - first)))


def _split(sampler: str, schedule: str) -> tuple[str, str]:
    for name in SCHEDULES:
        if sampler.lower().endswith(f" {name.lower()}"):
            sampler, schedule = sampler[:-len(name) - 1], name
    known = {name.lower(): name for name in SAMPLERS}
    if sampler.lower() not in known:
        raise SciArtError("sampler", f"unknown sampler {shown(sampler)}; {did_you_mean(sampler, SAMPLERS)}")
    schedules = {name.lower(): name for name in SCHEDULES}
    if schedule.lower() not in schedules:
        raise SciArtError("scheduler", f"unknown schedule {shown(schedule)}; {did_you_mean(schedule, SCHEDULES)}")
    return known[sampler.lower()], schedules[schedule.lower()]
