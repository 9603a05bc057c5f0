"""Subjects whose attention is alike are told apart: each keeps to one of the places they share."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.guidance.alike import places, separated

SIZE = 12


def spot(y, x, strength=1.0):
    """A map (h, w) with attention around a place, falling off with distance."""
    ys, xs = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return strength * (-((ys - y) ** 2 + (xs - x) ** 2) / 6.0).exp()


LEFT, RIGHT = spot(5, 2), spot(6, 9)


def test_alike_maps_get_a_place_each_the_one_where_they_are_stronger():
    maps = torch.stack([LEFT + 0.9 * RIGHT, 0.9 * LEFT + RIGHT]) + 0.1
    told, alike = separated(maps[None])
    assert alike.tolist() == [[True, True]]
    assert torch.equal(told[0, 0, :, :5], maps[0, :, :5]) and torch.equal(told[0, 1, :, 7:], maps[1, :, 7:])
    assert (told[0, 0, :, 7:] == maps[0].amin()).all() and (told[0, 1, :, :5] == maps[1].amin()).all()
    turned, _ = separated(maps[None].flip(1))
    assert torch.equal(turned, told.flip(1))


def test_maps_that_differ_are_left_as_they_are():
    maps = torch.stack([LEFT, RIGHT, LEFT + RIGHT])[None]
    told, alike = separated(maps)
    assert torch.equal(told, maps) and not alike.any()


def test_each_image_is_told_for_itself_and_a_third_that_differs_stays():
    other = spot(11, 5)
    maps = torch.stack([torch.stack([LEFT + RIGHT, LEFT + 1.05 * RIGHT, other]), torch.stack([LEFT, RIGHT, other])])
    told, alike = separated(maps)
    assert alike.tolist() == [[True, True, False], [False, False, False]]
    assert torch.equal(told[1], maps[1]) and torch.equal(told[0, 2], other)
    assert torch.equal(told[0:1], separated(maps[0:1])[0])


@pytest.mark.parametrize("spots", [[(2, 2), (9, 9)], [(2, 9), (9, 2), (9, 9)], [(1, 1), (1, 10), (10, 1), (10, 10)]])
def test_places_are_those_of_the_spots(spots):
    found = places(sum(spot(*at) for at in spots), len(spots))
    labels = [int(found[at]) for at in spots]
    assert sorted(labels) == list(range(len(spots)))
    for at, label in zip(spots, labels):
        y, x = at
        assert (found[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2] == label).all()


def test_one_spot_is_shared_out_and_no_attention_at_all_is_no_error():
    shared, alike = separated(torch.stack([LEFT, LEFT])[None])
    assert alike.all() and (shared[0].amax((-2, -1)) > 0.5).all()
    assert not ((shared[0, 0] > 0.1) & (shared[0, 1] > 0.1)).any()
    nothing, alike = separated(torch.ones(1, 2, SIZE, SIZE))
    assert torch.equal(nothing, torch.ones(1, 2, SIZE, SIZE)) and not alike.any()
