"""Orthogonal combination against dense float64 projections, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from written_out import projected_out

from sciart_ext.combine.orthogonal import Product, order_of, orthogonal, strongest_directions
from sciart_ext.combine.reduction import reduce_products
from sciart_ext.geometry.comparison import compare
from sciart_ext.lora.file import load_lora
from sciart_ext.world import MODEL


def random_products(ranks=(4, 6, 3), shape=(24, 30), seed=0):
    generator = torch.Generator().manual_seed(seed)
    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)
    return {k: Product(draw(shape[0], rank), draw(rank, shape[1])) for k, rank in enumerate(ranks)}


def matrices(products):
    return {k: (up @ down).numpy() for k, (up, down) in products.items()}


@pytest.mark.parametrize("strength", [0.25, 1.0])
@pytest.mark.parametrize("directions", [1, 3, 16])
@pytest.mark.parametrize("weights", [(0.65, 0.55, 0.5), (0.2, -0.9, 0.5), (0.5, 0.5, 0.5)])
def test_each_lora_leaves_the_strongest_directions_to_those_of_larger_weight(weights, directions, strength):
    products = random_products()
    dense = matrices(products)
    order = order_of(dict(enumerate(weights)))
    reduced = matrices(orthogonal(products, order, directions, strength))
    for place, k in enumerate(order):
        wanted = projected_out(dense[k], [dense[other] for other in order[:place]], directions, strength)
        np.testing.assert_allclose(reduced[k], wanted, atol=1e-11)


def test_the_order_is_that_of_the_weights_then_of_the_list():
    assert order_of({0: 0.5, 1: -0.9, 2: 0.5, 3: 0.0}) == (1, 0, 2)


def test_where_all_directions_are_left_the_deltas_are_orthogonal():
    reduced = orthogonal(random_products(), (0, 1, 2), 16, 1.0)
    for a in range(3):
        for b in range(a):
            assert float((reduced[b].up.T @ reduced[a].up).abs().max()) < 1e-10
            assert float((reduced[b].down @ reduced[a].down.T).abs().max()) < 1e-10


def test_without_strength_it_is_the_sum_and_the_more_the_less_is_left():
    products = random_products()
    left = [orthogonal(products, (0, 1, 2), 16, strength) for strength in (0.0, 0.3, 0.6, 1.0)]
    for k, product in products.items():
        assert torch.equal(left[0][k].up, product.up) and torch.equal(left[0][k].down, product.down)
    norms = [[one[k].squared_norm() for one in left] for k in (1, 2)]
    assert all(own == sorted(own, reverse=True) and own[-1] < own[0] for own in norms)


def test_ranks_stay_and_one_lora_alone_is_itself():
    products = random_products()
    reduced = orthogonal(products, (1,), 16, 1.0)
    assert torch.equal(reduced[1].up, products[1].up) and torch.equal(reduced[1].down, products[1].down)
    assert [reduced.down.shape[0] for reduced in orthogonal(products, (2, 1, 0), 4, 1.0).values()] == [3, 6, 4]


def test_the_same_lora_twice_is_there_once():
    one = random_products()[0]
    reduced = orthogonal({0: one, 1: one}, (0, 1), 16, 1.0)
    assert reduced[1].squared_norm() < 1e-18 * one.squared_norm() + 1e-18


def test_directions_that_occur_twice_are_projected_out_once():
    """A third LoRA loses nothing to a basis that is made of noise."""
    products = random_products()
    reduced = orthogonal({0: products[0], 1: products[0], 2: products[2]}, (0, 1, 2), 16, 1.0)
    alone = orthogonal({0: products[0], 2: products[2]}, (0, 2), 16, 1.0)
    torch.testing.assert_close(reduced[2].up @ reduced[2].down, alone[2].up @ alone[2].down)


def test_ranks_above_the_layers_width_are_no_trouble():
    products = random_products(ranks=(40, 3), shape=(24, 30))
    left, right = strongest_directions(products[0], 100)
    assert left.shape == (24, 24) and right.shape == (30, 24)
    reduced = orthogonal(products, (0, 1), 4096, 1.0)
    assert reduced[1].squared_norm() < 1e-18 * products[1].squared_norm()


def test_it_removes_what_geometry_says_it_would():
    loras = [load_lora(MODEL / "loras" / f"{name}.safetensors") for name in ("child", "watercolor")]
    found = compare(loras)
    for layer in found.layers[::10]:
        deltas = [lora.layers.get(layer.name) for lora in loras]
        if None in deltas:
            continue
        products = {k: Product(d.up.flatten(1).double() * d.scale, d.down.flatten(1).double())
                    for k, d in enumerate(deltas)}
        reduced = orthogonal(products, (0, 1), 4096, 1.0)
        removed = 1 - reduced[1].squared_norm() / products[1].squared_norm()
        assert removed == pytest.approx(float(layer.removed[1, 0]), abs=1e-6)


def test_a_sum_of_products_is_exact_at_the_sum_of_their_ranks():
    products = list(random_products().values())
    reduced = reduce_products(products, 13)
    torch.testing.assert_close(reduced.up @ reduced.down, sum(up @ down for up, down in products))
    assert reduced.lost == 0.0
