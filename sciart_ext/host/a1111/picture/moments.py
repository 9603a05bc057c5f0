"""When the evaluations of a call of a sampler take place: which step each belongs to, and how far the call then is."""

from __future__ import annotations

from modules import sd_samplers_timesteps
from torch import Tensor

from ....recipe.evaluations import EvaluationPattern, progress_of_sigma
from ....recipe.schedule import step_progress


class Moments:
    """Of the host's sampler in a run `p` that asks for so many steps. Evaluations are counted from 0."""

    def __init__(self, sampler, p, steps: int):
        self.sampler = sampler
        self.steps = _evaluated_steps(sampler, p, steps)
        """that are really run"""
        self._pattern = _pattern(sampler)
        self._levels: tuple[Tensor, float, float] | None = None
        """the model's noise levels, the least and the largest of them"""

    @property
    def evaluations(self) -> int:
        """Of all steps, about."""
        return self.steps * self._pattern.per_step

    def step(self, evaluation: int) -> int:
        """The step, from 0, to which an evaluation belongs."""
        return self._pattern.step(evaluation)

    def is_first_of_step(self, evaluation: int) -> bool:
        return evaluation == 0 or self.step(evaluation) > self.step(evaluation - 1)

    def is_in_last_step(self, evaluation: int) -> bool:
        return self.step(evaluation) + 1 == self.steps

    def progress(self, evaluation: int, sigma: Tensor) -> float:
        """0 in the first step to 1 in the last; sigma: of this evaluation."""
        if self._is_adaptive:  # which waits for each of its steps to know the next one's
            sigmas = self.sampler.model_wrap_cfg.inner_model.sigmas
            if self._levels is None or self._levels[0] is not sigmas:
                self._levels = sigmas, float(sigmas[0]), float(sigmas[-1])
            return progress_of_sigma(float(sigma.max()), *self._levels[1:])
        return step_progress(self.step(evaluation), self.steps)

    def coming_progress(self, evaluation: int) -> float | None:
        """Of the step after that of this evaluation; None where there is none, or where it is not known."""
        step = self.step(evaluation + 1)
        return None if step >= self.steps or self._is_adaptive else step_progress(step, self.steps)

    @property
    def _is_adaptive(self) -> bool:
        return self.sampler.funcname == "sample_dpm_adaptive"


def _pattern(sampler) -> EvaluationPattern:
    if sampler.func.__name__ == "plms":
        return EvaluationPattern(extra_in_first=1)
    return EvaluationPattern(per_step=2 if sampler.config.options.get("second_order") else 1)


def _evaluated_steps(sampler, p, steps: int) -> int:
    """The steps that are really run: the host's timestep samplers run one less, or as many as timesteps divide."""
    if not isinstance(sampler, sd_samplers_timesteps.CompVisSampler):
        return steps
    from_picture = getattr(p, "is_hr_pass", False) or hasattr(p, "init_images")
    count = steps - 1 if from_picture else len(sampler.get_timesteps(p, steps))
    return max(count if sampler.func.__name__ == "unipc" else count - 1, 1)
