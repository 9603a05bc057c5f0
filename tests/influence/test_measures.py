"""What is said of what a LoRA moved: curves, bends, shares of change, phases, where."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.influence.measures import bends, curve, evenness, mass_within, phases_of, shares_of_change, when, where


def path(*points):
    """Latents (steps + 1, 1, 1, d) of these points."""
    return torch.tensor(points, dtype=torch.float64)[:, None, None]


EARLY, LATE = path([0, 0], [3, 0], [3, 0], [3, 0]), path([0, 0], [0, 0], [0, 0], [0, 4])


def test_curves_are_the_distances_of_the_latents():
    assert curve(EARLY).tolist() == [0, 3, 3, 3] and curve(EARLY + LATE).tolist() == [0, 3, 3, 5]
    moved = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert curve(moved)[1] == pytest.approx(float(moved[1].norm()))


def test_bends_are_told_in_words():
    assert bends(EARLY).tolist() == [3, 0, 0] and bends(LATE).tolist() == [0, 0, 4]
    assert when(bends(EARLY)) == "mostly before step 2" and when(bends(LATE)) == "mostly after step 2"
    assert when(torch.ones(10)) == "throughout" and when(torch.zeros(4)) == "at no step"
    assert when(torch.tensor([3.0, 3, 1, 1, 0, 0, 0, 0, 0, 0])) == "mostly before step 3"


def test_shares_of_change_are_linear_one_for_all_of_it_and_tell_who_works_against():
    change = torch.tensor([3.0, 4])
    assert shares_of_change(change, change) == 1
    assert [float(shares_of_change(torch.tensor(one), change)) for one in ([3.0, 0], [0.0, 4], [-3.0, 0])] == (
        pytest.approx([9 / 25, 16 / 25, -9 / 25]))
    assert shares_of_change(torch.ones(2), torch.zeros(2)) == 0


def test_phases_are_thirds_of_the_way():
    assert phases_of(EARLY + LATE).flatten().tolist() == [3, 0, 0, 0, 0, 4]
    assert phases_of(torch.arange(21.0)[:, None, None, None]).flatten().tolist() == [7, 6, 7]


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


def test_where_is_told_by_the_word_that_is_seen_there():
    rocket, robot, space = spot(3, 9), spot(20, 3), torch.linspace(0.5, 1, 900).view(30, 30)
    words = {"rocket": rocket, "robot": robot, "space": space}
    assert where(spot(3, 9), words) == "on the rocket" and where(spot(21, 3), words) == "on the robot"
    assert where(spot(3, 9) + spot(20, 3) * 0.5, words) == "on the rocket"
    assert where(spot(22, 22), words) == "lower right" and where(torch.ones(30, 30), words) == "all over"
