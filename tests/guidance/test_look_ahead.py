"""The coarse run that finds the layout: DDIM, and which of its attention counts."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.guidance.look_ahead import EVALUATIONS, attention_ahead

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)


def run(start=999, picture=None):
    """Towards a fixed picture; the map of each evaluation is its number."""
    calls = []
    picture = torch.zeros(2, 4, 8, 8, dtype=torch.float64) if picture is None else picture

    def denoised(latents, time, progress):
        calls.append((latents, time, progress))
        return picture

    def attended(latents, time, progress):
        calls.append((latents, time, progress))
        return torch.full((2, 4, 4, 77), float(len(calls) - 1))

    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(picture.shape, generator=generator, dtype=torch.float64)
    alpha = ALPHAS[start]
    maps = attention_ahead(alpha.sqrt() * picture + (1 - alpha).sqrt() * noise, start, ALPHAS, denoised, attended,
                           lambda: torch.full((2, 4, 4, 77), float(len(calls) - 1)))
    return maps, calls, noise


def test_it_looks_between_four_and_seven_tenths():
    maps, calls, _ = run()
    assert [round(progress, 3) for _, _, progress in calls] == [round(i / 9, 3) for i in range(7)]
    assert len(calls) < EVALUATIONS  # the rest is not computed
    assert maps.unique().tolist() == [5] and maps.shape == (2, 4, 4, 77)  # the mean of 4, 5 and 6


def test_a_picture_that_is_known_keeps_its_noise_on_the_way():
    picture = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    _, calls, noise = run(picture=picture)
    for latents, time, _ in calls:
        assert torch.allclose(latents, ALPHAS[time].sqrt() * picture + (1 - ALPHAS[time]).sqrt() * noise)


@pytest.mark.parametrize(("start", "calls"), [(999, 7), (499, 3), (150, 1), (5, 1)])
def test_a_later_start_is_a_shorter_run(start, calls):
    _, made, _ = run(start)
    assert made[0][1] == start
    assert len(made) >= calls and len(made) <= calls + 1
