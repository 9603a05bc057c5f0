"""What is said of counterfactual runs: curves, shares, phases, heatmaps, where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciart_ext.colour import distances
from sciart_ext.influence.measures import (
    bends,
    evenness,
    heatmaps,
    latent_curves,
    mass_within,
    shares_by_phase,
    shares_of_change,
    when,
    where,
)
from sciart_ext.influence.shapley import exact_shares


def additive(*paths):
    """Trajectories (2ⁿ, steps + 1, 1, 1, d) of LoRAs that only add their own paths (steps + 1, d) to one of none."""
    none = torch.arange(len(paths[0]), dtype=torch.float64)[:, None].expand(-1, paths[0].shape[-1]) * 0.5
    return torch.stack([none + sum((path for k, path in enumerate(paths) if s >> k & 1), torch.zeros_like(none))
                        for s in range(1 << len(paths))])[:, :, None, None]


EARLY = torch.tensor([[0.0, 0], [3, 0], [3, 0], [3, 0]])
LATE = torch.tensor([[0.0, 0], [0, 0], [0, 0], [0, 4]])


def test_curves_are_the_distances_of_the_latents():
    curves = latent_curves(additive(EARLY, LATE))
    assert curves.alone.tolist() == curves.left_out.tolist() == [[0, 3, 3, 3], [0, 0, 0, 4]]
    runs = torch.randn(4, 3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    curves = latent_curves(runs)
    assert curves.alone[1, 2] == pytest.approx(float((runs[2, 2] - runs[0, 2]).norm()))
    assert curves.left_out[0, 1] == pytest.approx(float((runs[3, 1] - runs[2, 1]).norm()))


def test_bends_are_told_in_words():
    early, late = bends(additive(EARLY, LATE))
    assert early.tolist() == [3, 0, 0] and late.tolist() == [0, 0, 4]
    assert when(early) == "mostly before step 2" and when(late) == "mostly after step 2"
    assert when(torch.ones(10)) == "throughout" and when(torch.zeros(4)) == "at no step"
    assert when(torch.tensor([3.0, 3, 1, 1, 0, 0, 0, 0, 0, 0])) == "mostly before step 3"


def test_shares_of_change_sum_to_one_and_tell_who_works_against():
    assert shares_of_change(torch.tensor([[3.0, 0], [0, 4]])).tolist() == pytest.approx([9 / 25, 16 / 25])
    against = shares_of_change(torch.tensor([[3.0], [-1]]))
    assert against.tolist() == [1.5, -0.5]
    assert shares_of_change(torch.zeros(2, 5)).tolist() == [0, 0]
    shapley = exact_shares(torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(1)))
    assert float(shares_of_change(shapley).sum()) == pytest.approx(1)


def test_shares_by_phase_tell_when():
    shares = shares_by_phase(additive(EARLY, LATE))
    assert shares.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_heatmaps_are_those_of_the_colour_distance():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    maps = heatmaps(pictures)
    for k in range(2):
        assert np.allclose(maps[k].numpy(), distances(pictures[1 << k], pictures[0]))


def spot(y, x, size=30):
    heat = torch.zeros(size, size)
    heat[y:y + 6, x:x + 6] = 1
    return heat


@pytest.mark.parametrize(("heat", "words"), [
    (torch.ones(30, 30), "all over"), (torch.zeros(30, 30), "nowhere"), (spot(12, 12), "in the middle"),
    (spot(1, 1), "upper left"), (spot(22, 12), "lower"), (spot(12, 23), "right"),
    (spot(1, 1) + spot(22, 22), "in several places"), (spot(1, 1) + spot(1, 22), "upper"),
])
def test_where_is_told_in_words(heat, words):
    assert where(heat) == words


def test_evenness_and_mass():
    assert evenness(torch.ones(8, 8)) == pytest.approx(1) and evenness(spot(0, 0, 6)[:1, :1]) == pytest.approx(0)
    assert evenness(torch.cat([torch.ones(50), torch.zeros(50)])[None]) == pytest.approx(49 / 99)
    assert evenness(torch.zeros(3, 3)) == 0
    assert mass_within(spot(3, 9), (9, 3, 15, 9)) == 1 and mass_within(spot(3, 9), (9, 3, 12, 9)) == 0.5
    assert mass_within(torch.zeros(3, 3), (0, 0, 3, 3)) == 0


def test_runs_of_only_some_sets_are_refused():
    with pytest.raises(ValueError, match="a run of every set"):
        latent_curves(torch.zeros(3, 2, 1, 1, 1))
