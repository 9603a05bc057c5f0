"""The samplers and schedule types of the host (WebUI v1.10.1), by their names there. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SciArtError, did_you_mean, shown
from ...recipe.evaluations import EvaluationPattern

ONCE, TWICE = EvaluationPattern(), EvaluationPattern(per_step=2)


@dataclass(frozen=True)
class Sampler:
    """A sampler of the host's list.

    automatic: the schedule type that "Automatic" means, where it has one of its own; pattern: which step an evaluation
    belongs to.
    """

    name: str
    aliases: tuple[str, ...]
    automatic: str | None = None
    pattern: EvaluationPattern = ONCE
    drops_next_to_last: bool = False
    """leaves the last noise level but one out of the schedule, which has one more step for that"""
    by_time: bool = False
    """samples variance preserving latents at times of its own choice: no schedule type acts"""
    own_levels: bool = False
    """takes from the schedule type no more than how much noise it begins with"""
    least_steps: int = 1
    """with fewer the host fails, or makes no step at all"""


SAMPLERS = {sampler.name: sampler for sampler in (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), "Karras"),
    Sampler("DPM++ SDE", ("k_dpmpp_sde",), "Karras", TWICE),
    Sampler("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), "Exponential"),
    Sampler("DPM++ 2M SDE Heun", ("k_dpmpp_2m_sde_heun",), "Exponential"),
    Sampler("DPM++ 2S a", ("k_dpmpp_2s_a",), "Karras", TWICE),
    Sampler("DPM++ 3M SDE", ("k_dpmpp_3m_sde",), "Exponential", drops_next_to_last=True),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral")),
    Sampler("Euler", ("k_euler",)),
    Sampler("LMS", ("k_lms",)),
    Sampler("Heun", ("k_heun",), pattern=TWICE),
    Sampler("DPM2", ("k_dpm_2",), "Karras", TWICE, drops_next_to_last=True),
    Sampler("DPM2 a", ("k_dpm_2_a",), "Karras", TWICE, drops_next_to_last=True),
    Sampler("DPM fast", ("k_dpm_fast",), own_levels=True),
    Sampler("DPM adaptive", ("k_dpm_ad",), own_levels=True),
    Sampler("Restart", ("restart",), "Karras", TWICE),
    Sampler("DDIM", ("ddim",), by_time=True, least_steps=2),
    Sampler("DDIM CFG++", ("ddim_cfgpp",), by_time=True, least_steps=2),
    Sampler("PLMS", ("plms",), pattern=EvaluationPattern(extra_in_first=1), by_time=True, least_steps=2),
    Sampler("UniPC", ("unipc",), by_time=True, least_steps=3),
    Sampler("LCM", ("k_lcm",)),
)}
AUTOMATIC = "Automatic"
SCHEDULES = {
    AUTOMATIC: ("automatic",), "Uniform": ("uniform",), "Karras": ("karras",), "Exponential": ("exponential",),
    "Polyexponential": ("polyexponential",), "SGM Uniform": ("sgm_uniform", "SGMUniform"),
    "KL Optimal": ("kl_optimal",), "Align Your Steps": ("align_your_steps",), "Simple": ("simple",),
    "Normal": ("normal",), "DDIM": ("ddim",), "Beta": ("beta",),
}
"""schedule types with their aliases"""
TRAINED_TIMES = 1000
"""of every Stable Diffusion"""


def find(sampler: str, schedule: str = AUTOMATIC) -> tuple[Sampler, str]:
    """The sampler, and the schedule type that is meant: "Automatic" where the sampler has none of its own, which is as
    Uniform. Names are the host's or its aliases, whatever their case; the schedule type may stand at the end of the
    sampler's name, where it counts, as in `DPM++ 2M Karras`. Raises `SciArtError`."""
    known = {name.lower(): label for label, aliases in SCHEDULES.items() for name in (label, *aliases)}
    asked = schedule.lower()
    if asked not in known:
        raise SciArtError("scheduler", f"unknown schedule type {shown(schedule)}; "
                                       f"{did_you_mean(schedule, SCHEDULES, len(SCHEDULES))}")
    samplers = {name.lower(): one for one in SAMPLERS.values() for name in (one.name, *one.aliases)}
    name = " ".join(sampler.lower().split())
    for ending in sorted(known, key=len, reverse=True):
        if name not in samplers and name.endswith(f" {ending}"):
            name, asked = name[:-len(ending) - 1], ending
    if name not in samplers:
        raise SciArtError("sampler", f"unknown sampler {shown(sampler)}; "
                                     f"{did_you_mean(sampler, SAMPLERS, len(SAMPLERS))}")
    found, label = samplers[name], known[asked]
    return found, (found.automatic or AUTOMATIC) if label == AUTOMATIC else label


def steps_run(sampler: Sampler, steps: int) -> int:
    """The steps that are really run of so many: samplers by time run as many as their even distance fits in, all but
    UniPC one less. Progress runs over these. Raises `SciArtError` where the sampler needs more."""
    if steps < sampler.least_steps:
        raise SciArtError("steps", f"{steps} is too few for {sampler.name}; accepted: {sampler.least_steps} or more")
    if not sampler.by_time:
        return steps
    return len(evenly_spaced(steps)) - (sampler.name != "UniPC")


def evenly_spaced(steps: int) -> list[int]:
    """The host's times for samplers by time: ascending, a whole number apart; may be more than the steps."""
    return [min(time + 1, TRAINED_TIMES - 1) for time in range(0, TRAINED_TIMES, TRAINED_TIMES // steps)]
