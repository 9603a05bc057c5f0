"""Schedules: weights between and outside of points, progress, and the short text form."""

from __future__ import annotations

import math
import random

import pytest

from sciart_ext.errors import SciArtError
from sciart_ext.recipe.schedule import (
    CURVES,
    check_number,
    check_points,
    placed,
    points_to_text,
    step_progress,
    weight_at,
)
from sciart_ext.recipe.schedule_text import number_in, numbers_in

POINTS = ((0.2, 0.0), (0.6, 1.0), (0.8, -1.0))


@pytest.mark.parametrize("curve", CURVES)
def test_outside_the_points_the_nearest_point_holds(curve):
    assert weight_at(POINTS, curve, 0.0) == 0.0
    assert weight_at(POINTS, curve, 0.9) == -1.0
    assert weight_at(((0.5, 0.7),), curve, 0.1) == 0.7
    assert weight_at(((0.5, 0.7),), curve, 0.9) == 0.7


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("point", POINTS)
def test_at_a_point_its_own_weight_holds(curve, point):
    assert weight_at(POINTS, curve, point[0]) == point[1]


def test_linear_interpolates():
    assert weight_at(POINTS, "linear", 0.4) == pytest.approx(0.5)
    assert weight_at(POINTS, "linear", 0.7) == pytest.approx(0.0)


def test_step_holds_the_earlier_point():
    assert weight_at(POINTS, "step", 0.59) == 0.0
    assert weight_at(POINTS, "step", 0.79) == 1.0


def test_cosine_eases():
    assert weight_at(POINTS, "cosine", 0.4) == pytest.approx(0.5)
    assert weight_at(POINTS, "cosine", 0.3) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    assert weight_at(POINTS, "cosine", 0.3) < weight_at(POINTS, "linear", 0.3)


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_weights_stay_between_their_points(curve):
    for i in range(101):
        assert -1.0 <= weight_at(POINTS, curve, i / 100) <= 1.0


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 35, 150])
def test_a_point_at_a_step_is_met_exactly_by_that_step(steps):
    for step in range(steps):
        progress = step_progress(step, steps)
        assert weight_at(check_points([[0, 0], [progress, 5]] if step else [[0, 5]]), "step", progress) == 5


def test_progress_runs_from_0_to_1_over_steps_less_one():
    assert [step_progress(step, 5) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_one_step_is_progress_0_and_progress_is_never_outside():
    assert step_progress(0, 1) == 0
    assert step_progress(9, 5) == 1
    assert step_progress(-1, 5) == 0


@pytest.mark.parametrize(("text", "points"), [
    ("0.2@0, 0.65@0.5", ((0, 0.2), (0.5, 0.65))),
    (" 0.65@0.5,0.2@0 ", ((0, 0.2), (0.5, 0.65))),
    ("0.2@0; 1@1", ((0, 0.2), (1, 1))),
    ("0.5", ((0, 0.5),)),
    ("-1e-3@.25", ((0.25, -0.001),)),
    ("0@0,5@1", ((0, 0), (1, 5))),
    ("0,5", ((0, 0.5),)),
    ("0,2@0; 0,65@0,5", ((0, 0.2), (0.5, 0.65))),
    ("0,2@0, 0,65@0,5", ((0, 0.2), (0.5, 0.65))),
    ("1@0,5", ((0.5, 1),)),
    ("0.2@0\n0.65@0.5", ((0, 0.2), (0.5, 0.65))),
    ("50%", ((0, 0.5),)),
    ("20%@50%, 65 %@1", ((0.5, 0.2), (1, 0.65))),
    ("０．２＠０，０．６５＠５０％", ((0, 0.2), (0.5, 0.65))),
    ("\u22120.5@0", ((0, -0.5),)),
    ("0.2@0.2, 1@0.2", ((0.2, 0.2), (0.2, 1))),
    ("1@s5, 0.2@S1", (("s1", 0.2), ("s5", 1))),
    ("1 @ step 5; 0@1", (("s5", 1), (1, 0))),
    ("0.8:start=5:stop=10", (("s5", 0), ("s5", 0.8), ("s10", 0.8), ("s10", 0))),
    ("0.8 step=5-10", (("s5", 0), ("s5", 0.8), ("s10", 0.8), ("s10", 0))),
    ("0,8, Stop = s10", (("s10", 0.8), ("s10", 0))),
    ("0.8;start=25%", ((0.25, 0), (0.25, 0.8))),
])
def test_the_short_text_is_read(text, points):
    assert check_points(text) == points


def test_points_read_back_exactly_from_their_text():
    rng = random.Random(0)
    for i in range(300):
        places = sorted({rng.choice([0.0, 1.0, rng.random()]) for _ in range(rng.randint(1, 6))})
        steps = [f"s{step}" for step in sorted({rng.randint(1, 99) for _ in range(rng.randint(1, 6))})]
        places = (places, steps, rng.sample(places + steps, len(places + steps)))[i % 3]
        points = tuple((place, rng.choice([0.0, 1.0, -2.0, rng.uniform(-10, 10)]))
                       for place in places for _ in range(rng.randint(1, 2)))
        assert check_points(points_to_text(points)) == points
        assert check_points([list(point) for point in points]) == points


@pytest.mark.parametrize("curve", CURVES)
def test_at_a_jump_the_second_point_holds_and_the_first_is_what_comes_before(curve):
    points = check_points("0@0, 0.2@0.2, 1@0.2, 0@1")
    assert weight_at(points, curve, 0.2) == 1
    assert weight_at(points, curve, 0.2 - 1e-6) == pytest.approx(0.2 if curve != "step" else 0, abs=1e-4)
    jump = check_points("0.2@0.2, 1@0.2")
    assert [weight_at(jump, curve, progress) for progress in (0, 0.199, 0.2, 0.201, 1)] == [0.2, 0.2, 1, 1, 1]
    assert weight_at(check_points("0.2@0, 1@0"), curve, 0) == 1
    assert weight_at(check_points("0.2@1, 1@1"), curve, 1) == 1


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 35, 150])
def test_a_jump_at_a_step_is_there_at_exactly_that_step(steps):
    for number in range(1, steps + 1):
        points = placed(check_points(f"0@s{number}, 1@s{number}"), steps)
        weights = [weight_at(points, "linear", step_progress(step, steps)) for step in range(steps)]
        assert weights == [0] * (number - 1) + [1] * (steps - number + 1)


def test_steps_are_counted_from_1_and_one_after_the_last_is_never_reached():
    assert placed(check_points("0@s1, 1@s5"), 5) == [[0, 0], [1, 1]]
    assert placed(check_points("0.5@1, 0@s2"), 5) == [[0.25, 0], [1, 0.5]]
    late = placed(check_points("0@s1, 1@s9"), 5)
    assert [weight_at(late, "linear", step_progress(step, 5)) for step in range(5)] == [0, 0.125, 0.25, 0.375, 0.5]
    assert weight_at(placed(check_points("0.8:stop=9"), 5), "linear", 1) == 0.8
    assert weight_at(placed(check_points("0.8:start=1"), 1), "linear", 0) == 0.8
    assert weight_at(placed(check_points("0.8:start=2"), 1), "linear", 0) == 0


@pytest.mark.parametrize(("text", "number"), [
    ("0.5", 0.5), ("0,5", 0.5), (",5", 0.5), ("50%", 0.5), (" 12,5 % ", 0.125), ("５０％", 0.5), ("+1e1", 10),
    ("1.000,5", None), ("1,000.5", None), ("0,5,", None), ("1,", None), ("", None), ("%", None), ("0.5²", None),
    ("1_000", None), ("٥", None), ("nan", None), ("0 .5", None)])
def test_numbers_as_people_write_them(text, number):
    assert number_in(text) == number


def test_lists_of_numbers():
    assert numbers_in("1, 0.5 ,0") == [1, 0.5, 0] and numbers_in("1;0,5;0") == [1, 0.5, 0]
    assert numbers_in("100%,50%") == [1, 0.5] and numbers_in("１，０") == [1, 0] and numbers_in("1,2") == [1, 2]
    for text in ("1,", "1,,1", "1,x", "1;0.5,2"):
        with pytest.raises(SciArtError):
            numbers_in(text)


def test_a_long_text_without_meaning_is_refused_at_once():
    for text in ("1@" + "0," * 45_000 + "@1", " " * 90_000 + "x", "start" * 20_000, "1@0@" * 20_000):
        with pytest.raises(SciArtError):
            check_points(text)


def test_whole_numbers_are_written_short():
    assert points_to_text(((0.0, 1.0), (1.0, -2.0), (0.5, 0.25))) == "1@0, -2@1, 0.25@0.5"


@pytest.mark.parametrize("text", ["nan@0", "inf@0", "0@nan", "", ",", "1@", "@1", "1@0,", "1 @ 0 @", "a"])
def test_a_text_that_is_no_schedule_is_refused(text):
    with pytest.raises(SciArtError):
        check_points(text)


@pytest.mark.parametrize("value", [True, "1", None, [1], float("nan"), float("inf"), -0.1, 1.1])
def test_a_number_is_a_finite_number_in_its_range(value):
    with pytest.raises(SciArtError) as caught:
        check_number(value, "field", 0.0, 1.0)
    assert caught.value.field == "field"
    assert "from 0 to 1" in caught.value.message
