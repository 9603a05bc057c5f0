"""A sampler for one picture, or for a batch: the host's name, steps and schedule type, on a model's noise levels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...recipe.evaluations import progress_of_sigma
from ...recipe.schedule import step_progress
from . import dpm_solver, ode, times, unipc
from .levels import Consistency, Exploding, Levels, Model, PlusPlus, Preserving
from .names import AUTOMATIC, Sampler, evenly_spaced, find, steps_run
from .noise import Noise
from .schedules import sigmas_of

CFG_PLUS_PLUS = 1 / 12.5
"""the host's CFG scale from 0 to 12.5 is CFG++'s from 0 to 1"""
ADAPTIVE = "DPM adaptive"
BY_SIGMA = {
    "DPM++ 2M": dpm_solver.dpmpp_2m, "Euler": ode.euler, "LMS": ode.lms, "Heun": ode.heun, "DPM2": ode.dpm2,
}
BY_SIGMA_WITH_NOISE = {
    "DPM++ 2S a": dpm_solver.dpmpp_2s_ancestral, "Euler a": ode.euler_ancestral, "DPM2 a": ode.dpm2_ancestral,
    "Restart": ode.restart, "LCM": ode.lcm,
}
BY_SIGMA_WITH_BROWNIAN = {
    "DPM++ SDE": dpm_solver.dpmpp_sde, "DPM++ 2M SDE": dpm_solver.dpmpp_2m_sde,
    "DPM++ 2M SDE Heun": functools.partial(dpm_solver.dpmpp_2m_sde, heun=True),
    "DPM++ 3M SDE": dpm_solver.dpmpp_3m_sde,
}
BY_TIME = {"DDIM": times.ddim, "DDIM CFG++": times.ddim_cfgpp, "PLMS": times.plms}
Evaluations = Generator[tuple[Tensor, float], object, Tensor]


@dataclass(frozen=True)
class Sampling:
    """A sampler that is ready to begin.

    schedule: the schedule type that is meant, as `names.find` has it; steps: those that are run; begin: its generator,
    of unit noise (images, c, h, w) and the pictures' `Noise`, None for a sampler that adds none.
    """

    sampler: Sampler
    schedule: str
    steps: int
    levels: Levels
    begin: Callable[[Tensor, Noise | None], Evaluations]
    cfg_factor: float = 1.0
    """of the CFG scale"""
    notes: tuple[str, ...] = ()

    @property
    def is_cfg_plus_plus(self) -> bool:
        """Whether it goes on from the prediction without prompt, at any CFG scale."""
        return isinstance(self.levels, PlusPlus)

    @property
    def is_adaptive(self) -> bool:
        """Whether it chooses its own steps: the same for all pictures of a batch, by the largest error of them."""
        return self.sampler.name == ADAPTIVE

    def step(self, evaluation: int) -> int:
        """The step (0-based) of an evaluation (0-based)."""
        return self.sampler.pattern.step(evaluation)

    def progress(self, evaluation: int, level: float) -> float:
        """0 in the first step to 1 in the last, the same in all evaluations of a step; by log σ where the sampler
        chooses its steps."""
        if self.is_adaptive:
            return progress_of_sigma(level, self.levels.least, self.levels.largest)
        return step_progress(self.step(evaluation), self.steps)


def make_sampling(sampler: str, schedule: str, steps: int, model: Model) -> Sampling:
    """sampler, schedule: as `names.find` takes them; steps: as they are asked for. Raises `SciArtError`."""
    found, meant = find(sampler, schedule)
    run, notes = steps_run(found, steps), ()
    if (found.by_time or found.own_levels) and meant != AUTOMATIC:
        notes = (f"scheduler {meant}: {found.name} spaces its steps itself",)
    if found.by_time:
        kind = PlusPlus if found.name == "DDIM CFG++" else Preserving
        return Sampling(found, meant, run, kind(model), functools.partial(_by_time, found.name, steps, model),
                        CFG_PLUS_PLUS if kind is PlusPlus else 1.0, notes)
    levels = Consistency(model) if found.name == "LCM" else Exploding(model)
    sigmas = sigmas_of(meant, steps + found.drops_next_to_last, levels, model.is_xl)
    if found.drops_next_to_last:
        del sigmas[-2]
    return Sampling(found, meant, run, levels, functools.partial(_by_sigma, found.name, sigmas, run, levels),
                    notes=notes)


def _by_time(name: str, steps: int, model: Model, unit: Tensor, noise: Noise | None) -> Evaluations:
    x = unit.clone()  # which guidance may change
    if name == "UniPC":
        return unipc.unipc(x, len(evenly_spaced(steps)), model.alphas)
    return BY_TIME[name](x, evenly_spaced(steps), model.alphas)


def _by_sigma(name: str, sigmas: Sequence[float], steps: int, levels: Exploding, unit: Tensor, noise: Noise | None,
              ) -> Evaluations:
    x = unit * sigmas[0]
    if name in BY_SIGMA:
        return BY_SIGMA[name](x, sigmas)
    if name in BY_SIGMA_WITH_NOISE:
        return BY_SIGMA_WITH_NOISE[name](x, sigmas, noise.draw)
    if name in BY_SIGMA_WITH_BROWNIAN:
        return BY_SIGMA_WITH_BROWNIAN[name](x, sigmas, noise.brownian(sigmas))
    if name == ADAPTIVE:
        return dpm_solver.dpm_adaptive(x, levels.largest, levels.least, noise.draw)
    return dpm_solver.dpm_fast(x, levels.largest, levels.least, steps, noise.draw)
