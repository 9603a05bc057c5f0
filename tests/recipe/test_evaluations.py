"""Which step an evaluation belongs to: samplers that evaluate several times in a step keep one gate for it."""

from __future__ import annotations

import math

import pytest

from sciart_ext.recipe.evaluations import EvaluationPattern, progress_of_sigma

# (sampler, its pattern, the steps of its evaluations in a run of five steps)
RUNS = [
    ("Euler, one evaluation a step", EvaluationPattern(), [0, 1, 2, 3, 4]),
    ("Heun, two a step and one in the last", EvaluationPattern(per_step=2), [0, 0, 1, 1, 2, 2, 3, 3, 4]),
    ("two in every step", EvaluationPattern(per_step=2), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ("PLMS, one more in the first step", EvaluationPattern(extra_in_first=1), [0, 0, 1, 2, 3, 4]),
]


@pytest.mark.parametrize(("pattern", "steps"), [row[1:] for row in RUNS], ids=[row[0] for row in RUNS])
def test_evaluations_belong_to_the_steps_of_their_sampler(pattern, steps):
    assert [pattern.step(evaluation) for evaluation in range(len(steps))] == steps


def test_progress_of_the_noise_level_runs_from_zero_to_one():
    assert progress_of_sigma(14.6, 0.03, 14.6) == 0.0
    assert progress_of_sigma(0.03, 0.03, 14.6) == 1.0
    levels = [14.6 * (0.03 / 14.6) ** (i / 10) for i in range(11)]
    assert [progress_of_sigma(sigma, 0.03, 14.6) for sigma in levels] == pytest.approx([i / 10 for i in range(11)])


def test_progress_is_linear_in_the_logarithm_of_the_noise_level():
    assert progress_of_sigma(math.sqrt(0.03 * 14.6), 0.03, 14.6) == pytest.approx(0.5)


@pytest.mark.parametrize(("sigma", "progress"), [(100.0, 0.0), (0.01, 1.0), (0.0, 1.0)])
def test_noise_levels_outside_the_range_are_its_ends(sigma, progress):
    assert progress_of_sigma(sigma, 0.03, 14.6) == progress
