"""FreeFuse's masks, to compare with: their parts have the values that the formulas say."""

from __future__ import annotations

import pytest
import torch

from benchmarks.peers.freefuse_masks import Balance, balanced_argmax, contrasts, cores, freefuse_masks, similarities


def test_contrast_is_n_times_the_own_map_less_all_others():
    attention = torch.tensor([[0.5, 0.1], [0.2, 0.3], [0.1, 0.4]])
    assert contrasts(attention)[0].tolist() == pytest.approx([3 * 0.5 - 0.2 - 0.1, 3 * 0.1 - 0.3 - 0.4])
    assert contrasts(attention)[2].tolist() == pytest.approx([3 * 0.1 - 0.5 - 0.2, 3 * 0.4 - 0.1 - 0.3])


def test_the_core_is_the_largest_tenth_and_one_place_at_least():
    contrast = torch.arange(20.0)[None]
    assert sorted(cores(contrast, 0.1)[0].tolist()) == [18, 19]
    assert cores(contrast[:, :5], 0.1)[0].tolist() == [4]


def test_similarity_is_a_softmax_over_places_of_the_mean_product_with_the_core():
    hidden = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    found = similarities(torch.tensor([[0, 1]]), hidden, 2.0)
    products = torch.tensor([1 * 1 + 0, 0 + 2 * 2, 3 + 2.0]) / 2  # of both core places, their mean
    assert found[0].tolist() == pytest.approx((products / 2.0).softmax(0).tolist())


def test_a_low_temperature_sharpens():
    hidden = torch.tensor([[1.0], [0.5], [0.1]])
    core = torch.tensor([[0]])
    assert similarities(core, hidden, 0.1).max() > similarities(core, hidden, 10.0).max()


def test_without_rounds_it_is_the_plain_argmax():
    values = torch.tensor([[3.0, 3.0, 3.0, 1.0], [1.0, 2.0, 2.5, 2.0]])[:, None]
    assert balanced_argmax(values, Balance(rounds=0)).tolist() == [[0, 0, 0, 1]]


def test_balancing_gives_away_the_places_that_are_kept_by_least():
    values = torch.tensor([[3.0, 3.0, 3.0, 1.0], [1.0, 2.0, 2.5, 2.0]])[:, None]
    assert balanced_argmax(values, Balance(rounds=100, rate=0.05, decay=1.0)).tolist() == [[0, 0, 1, 1]]


def test_the_published_rounds_only_nudge():
    values = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 1.0, 2.0, 2.9]])[:, None]
    assert balanced_argmax(values, Balance()).tolist() == [[0, 0, 0, 1]]


def test_two_things_apart_get_a_mask_each_and_every_place_is_ones():
    """Left half and right half look different; each word looks at a corner of its half only."""
    hidden = torch.zeros(8, 8, 2)
    hidden[:, :4, 0], hidden[:, 4:, 1] = 5.0, 5.0
    attention = torch.full((2, 8, 8), 0.1)
    attention[0, :2, :3] += 0.5
    attention[1, 6:, 5:] += 0.5
    masks = freefuse_masks(attention, hidden.view(64, 2), temperature=10.0)
    assert masks.dtype == torch.bool and masks.shape == (2, 8, 8)
    assert torch.equal(masks.sum(0), torch.ones(8, 8, dtype=torch.long))
    assert masks[0, :, :4].all() and masks[1, :, 4:].all()


def test_a_hole_is_closed_by_the_votes_around_it():
    values = torch.zeros(2, 5, 8)
    values[0, :, :4], values[1, :, 4:] = 1.0, 1.0
    values[:, 2, 1] = torch.tensor([0.4, 0.6])
    assert balanced_argmax(values, Balance(rate=0.0))[2, 1] == 1
    closed = balanced_argmax(values, Balance(rate=0.0, votes=1.0))
    assert torch.equal(closed, (torch.arange(8) >= 4).long().expand(5, 8))


def test_what_is_far_from_a_subjects_centre_is_the_others():
    values = torch.zeros(2, 1, 9)
    values[0, 0, :5], values[1, 0, 5:] = 1.0, 1.0
    values[:, 0, 8] = torch.tensor([0.6, 0.4])
    assert balanced_argmax(values, Balance(rate=0.0))[0, 8] == 0
    assert balanced_argmax(values, Balance(rate=0.0, pull=0.3))[0].tolist() == [0] * 5 + [1] * 4


def test_three_subjects_share_evenly_where_nothing_tells_them_apart_but_their_cores():
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(64, 16, generator=generator)
    attention = torch.rand(3, 8, 8, generator=generator)
    masks = freefuse_masks(attention, hidden, 0.1, 20.0, Balance(300, 0.02))
    plain = freefuse_masks(attention, hidden, 0.1, 20.0, Balance(0))
    spread = [areas.max() - areas.min() for areas in (masks.flatten(1).sum(1), plain.flatten(1).sum(1))]
    assert spread[0] < spread[1]
