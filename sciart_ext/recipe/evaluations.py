"""Which step of a sampler a model evaluation belongs to. Samplers that evaluate twice in a step use one gate."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationPattern:
    """How a sampler spends its evaluations: so many per step, or (PLMS) one more in the first step."""

    per_step: int = 1
    extra_in_first: int = 0

    def step(self, evaluation: int) -> int:
        """The step (0-based) of an evaluation (0-based)."""
        return max(evaluation - self.extra_in_first, 0) // self.per_step


def progress_of_sigma(sigma: float, sigma_min: float, sigma_max: float) -> float:
    """Progress from the noise level, for samplers that choose their own number of steps: linear in log sigma."""
    if sigma <= sigma_min:
        return 1.0
    return min(max(math.log(sigma_max / sigma) / math.log(sigma_max / sigma_min), 0.0), 1.0)
