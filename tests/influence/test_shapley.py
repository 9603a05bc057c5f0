"""Shapley shares: their axioms, their textbook definition, and how sure the sampled ones are."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from sciart_ext.influence.shapley import exact_shares, random_orders, sampled_shares, sets_of, steps_of

SHAPE = (3, 5, 4)


def game(count, seed=0, dtype=torch.float32):
    return torch.randn(1 << count, *SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_all_orders(values, count):
    gains = torch.zeros(count, *SHAPE, dtype=torch.float64)
    orders = list(permutations(range(count)))
    for order in orders:
        for before, after, k in steps_of(order):
            gains[k] += values[after].double() - values[before].double()
    return gains / len(orders)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_they_sum_to_the_difference_of_all_and_none_pixel_by_pixel(count, dtype):
    values = game(count, dtype=dtype)
    residual = exact_shares(values).sum(0) - (values[-1].double() - values[0].double())
    assert residual.abs().max() <= 1e-12


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_they_are_the_means_over_all_orders(count):
    values = game(count)
    torch.testing.assert_close(exact_shares(values), by_all_orders(values, count), rtol=1e-12, atol=1e-12)


def test_a_lora_that_changes_nothing_gets_exactly_nothing():
    values = game(3)
    for s in range(8):
        values[s | 2] = values[s & ~2]
    assert (exact_shares(values)[1] == 0).all()


def test_loras_that_do_the_same_get_equal_shares():
    values = game(3)
    values[[2, 6]] = values[[1, 5]]  # 0 or 1 alone, and each with 2
    shares = exact_shares(values)
    assert torch.equal(shares[0], shares[1]) and not torch.equal(shares[0], shares[2])


def test_a_share_is_linear_in_the_values():
    one, two = game(3, 1).double(), game(3, 2).double()
    torch.testing.assert_close(exact_shares(2 * one - two), 2 * exact_shares(one) - exact_shares(two))


def test_all_orders_sampled_are_exact():
    values = game(4)
    found = sampled_shares(lambda s: values[s], random_orders(4, 24, seed=0))
    torch.testing.assert_close(found.shares, exact_shares(values))


def test_sampled_ones_sum_too_and_each_set_is_asked_for_once():
    values, asked = game(6), []

    def value(s):
        asked.append(s)
        return values[s]

    orders = random_orders(6, 5, seed=1)
    found = sampled_shares(value, orders)
    torch.testing.assert_close(found.shares.sum(0), values[-1].double() - values[0].double())
    assert sorted(asked) == sorted(sets_of(orders)) and len(set(asked)) == len(asked)


@pytest.mark.parametrize("orders", [4, 12, 60])
def test_the_stated_interval_contains_the_exact_value_as_often_as_it_should(orders):
    inside = []
    for seed in range(100):
        values = game(6, seed)
        found = sampled_shares(lambda s, values=values: values[s], random_orders(6, orders, seed))
        inside.append(((found.shares - exact_shares(values)).abs() <= found.errors).double().mean())
    assert 0.92 <= float(torch.stack(inside).mean()) <= 0.97


def test_orders_are_all_of_them_where_there_are_no_more_and_repeat_with_their_seed():
    assert sorted(random_orders(3, 6, seed=0)) == sorted(permutations(range(3)))
    assert random_orders(7, 4, seed=3) == random_orders(7, 4, seed=3) != random_orders(7, 4, seed=4)
    assert all(sorted(order) == list(range(7)) for order in random_orders(7, 4, seed=3))


def test_what_is_no_game_is_refused():
    with pytest.raises(ValueError, match="2ⁿ of them, got 3"):
        exact_shares(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="two orders or more"):
        sampled_shares(lambda s: torch.zeros(2), [(0, 1)])
