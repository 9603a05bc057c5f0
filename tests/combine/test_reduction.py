"""Reducing to a rank: the nearest matrix, and an error that is true."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.combine.orthogonal import Product
from sciart_ext.combine.reduction import Reduced, reduce_dense, reduce_products, relative_error


def decaying(m=60, n=90, seed=0, dtype=torch.float64):
    """A matrix whose singular values fall like 1/i."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(m, m, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, m, generator=generator, dtype=torch.float64))[0]
    return ((u / torch.arange(1, m + 1)) @ v.T).to(dtype)


def lost(matrix, reduced):
    return float((matrix.double() - (reduced.up @ reduced.down).double()).square().sum())


@pytest.mark.parametrize("rank", [1, 8, 60])
def test_exact_is_the_nearest_matrix_of_that_rank(rank):
    matrix = decaying()
    reduced = reduce_dense(matrix, rank, "exact")
    assert reduced.up.shape == (60, rank) and reduced.down.shape == (rank, 90)
    tail = sum(1 / i**2 for i in range(rank + 1, 61))
    assert reduced.lost == pytest.approx(tail, abs=1e-12) and reduced.lost == pytest.approx(lost(matrix, reduced))
    assert reduced.whole == pytest.approx(float(matrix.square().sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_randomised_is_near_the_nearest_and_says_what_it_lost(dtype):
    matrix = decaying(200, 300, dtype=dtype)
    exact, randomised = reduce_dense(matrix, 10, "exact"), reduce_dense(matrix, 10, "randomised")
    assert randomised.lost == pytest.approx(lost(matrix, randomised), rel=1e-6)
    assert exact.lost <= randomised.lost * (1 + 1e-6) <= exact.lost * 1.001
    again = reduce_dense(matrix, 10, "randomised")
    assert torch.equal(randomised.up, again.up)
    assert not torch.equal(exact.up, randomised.up)


def test_auto_is_exact_unless_the_rank_is_small_beside_the_matrix():
    large, small = decaying(200, 300), decaying(40, 50)
    assert torch.equal(reduce_dense(large, 8).up, reduce_dense(large, 8, "randomised").up)
    assert torch.equal(reduce_dense(large, 100).up, reduce_dense(large, 100, "exact").up)
    assert torch.equal(reduce_dense(small, 8).up, reduce_dense(small, 8, "exact").up)


def test_products_are_reduced_as_their_dense_sum_is():
    generator = torch.Generator().manual_seed(2)
    products = [Product(torch.randn(30, rank, generator=generator, dtype=torch.float64),
                        torch.randn(rank, 40, generator=generator, dtype=torch.float64)) for rank in (5, 9)]
    whole = sum(up @ down for up, down in products)
    for rank in (1, 7, 14, 20):
        thin, dense = reduce_products(products, rank), reduce_dense(whole, min(rank, 14), "exact")
        torch.testing.assert_close(thin.up @ thin.down, dense.up @ dense.down)
        assert thin.lost == pytest.approx(dense.lost, abs=1e-9) and thin.whole == pytest.approx(dense.whole)


def test_singular_values_are_shared_between_both_factors():
    reduced = reduce_dense(decaying(), 8, "exact")
    torch.testing.assert_close(reduced.up.norm(dim=0), reduced.down.norm(dim=1))


def test_errors_of_several_matrices_are_one():
    one = torch.ones(1, 1)
    assert relative_error([Reduced(one, one, 1.0, 4.0), Reduced(one, one, 3.0, 12.0)]) == 0.5
    assert relative_error([Reduced(one, one, 0.0, 0.0)]) == 0.0


def test_an_unknown_svd_is_refused():
    with pytest.raises(ValueError, match="accepted: exact, randomised, auto"):
        reduce_dense(decaying(), 3, "quick")
