"""Shapley shares: their axioms, their textbook definition, and how sure the sampled ones are."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from sciart_ext.influence.shapley import exact_shares, sampled_shares, sets_of, spread_orders, steps_of

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
    found = sampled_shares(lambda s: values[s], list(permutations(range(4))))
    torch.testing.assert_close(found.shares, exact_shares(values))


def test_sampled_ones_sum_too_and_each_set_is_asked_for_once():
    values, asked = game(6), []

    def value(s):
        asked.append(s)
        return values[s]

    orders = spread_orders(6, 5, seed=1)
    found = sampled_shares(value, orders)
    torch.testing.assert_close(found.shares.sum(0), values[-1].double() - values[0].double())
    assert sorted(asked) == sorted(sets_of(orders)) and len(set(asked)) == len(asked)


def test_the_error_of_independent_orders_is_stated_at_its_rate():
    inside = []
    for seed in range(100):
        values, generator = game(6, seed), torch.Generator().manual_seed(seed)
        orders = [torch.randperm(6, generator=generator).tolist() for _ in range(12)]
        found = sampled_shares(lambda s, values=values: values[s], orders)
        inside.append(((found.shares - exact_shares(values)).abs() <= found.errors).double().mean())
    assert 0.92 <= float(torch.stack(inside).mean()) <= 0.97


def games(count, seed):
    """(name, values of all sets): without structure, additive with noise, saturating, of pairs, of triples."""
    generator = torch.Generator().manual_seed(seed)
    sets = torch.tensor([[s >> k & 1 for k in range(count)] for s in range(1 << count)]).double()

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    noise, weights = draw(len(sets), 20), draw(count, 20)
    yield "noise", noise
    yield "additive", sets @ weights + 0.3 * noise
    yield "saturating", 1 - torch.exp(-sets @ weights.abs())
    yield "pairs", torch.einsum("si,sj,ijk->sk", sets, sets, draw(count, count, 20))
    yield "triples", torch.einsum("si,sj,sl,ijlk->sk", sets, sets, sets, draw(count, count, count, 20))


@pytest.mark.parametrize(("count", "orders"), [(5, 12), (6, 4), (6, 12), (6, 24), (8, 4), (8, 12), (10, 12)])
def test_the_stated_interval_contains_the_exact_value_at_least_as_often_as_stated(count, orders):
    inside: dict[str, list] = {}
    for seed in range(20):
        for name, values in games(count, seed):
            found = sampled_shares(lambda s, values=values: values[s], spread_orders(count, orders, seed))
            held = (found.shares - exact_shares(values)).abs() <= found.errors + 1e-12
            inside.setdefault(name, []).append(held.double().mean())
    assert all(float(torch.stack(held).mean()) >= 0.945 for held in inside.values()), inside


def test_spread_orders_err_less_than_independent_ones():
    def error(values, orders):
        found = sampled_shares(lambda s: values[s], orders)
        return float((found.shares - exact_shares(values)).abs().mean())

    spread, independent = {}, {}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        for name, values in games(6, seed):
            drawn = [torch.randperm(6, generator=generator).tolist() for _ in range(12)]
            spread[name] = spread.get(name, 0) + error(values, spread_orders(6, 12, seed))
            independent[name] = independent.get(name, 0) + error(values, drawn)
    assert all(spread[name] < 0.95 * independent[name] for name in spread), (spread, independent)
    assert spread["pairs"] < 1e-12


def test_every_lora_comes_at_every_place_and_before_each_other_as_often_as_after():
    orders = spread_orders(6, 12, seed=5)
    assert all(sorted(order) == list(range(6)) for order in orders) and len(set(orders)) == 12
    for place in range(6):
        assert sorted(order[place] for order in orders) == sorted([*range(6), *range(6)])
    for a, b in permutations(range(6), 2):
        assert sum(order.index(a) < order.index(b) for order in orders) == 6


def test_orders_repeat_with_their_seed_and_are_as_many_as_asked():
    assert spread_orders(7, 5, seed=3) == spread_orders(7, 5, seed=3) != spread_orders(7, 5, seed=4)
    assert [len(spread_orders(7, orders, seed=0)) for orders in (2, 3, 14, 15, 40)] == [2, 3, 14, 15, 40]


def test_what_is_no_game_is_refused():
    with pytest.raises(ValueError, match="2ⁿ of them, got 3"):
        exact_shares(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="two orders or more"):
        sampled_shares(lambda s: torch.zeros(2), [(0, 1)])
