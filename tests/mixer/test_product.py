"""Products with stacked factors: the same numbers by either route."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.mixer import product
from sciart_ext.mixer.product import add_times, times

RANKS = [1, 8, 96]
SHAPES = [(6,), (3, 5), (2, 3, 5)]


@pytest.fixture(autouse=True, params=["blas", "convolved"])
def route(request, monkeypatch):
    """Every test by both routes."""
    monkeypatch.setattr(product, "CONVOLVED_WORK", 0 if request.param == "convolved" else float("inf"))
    return request.param


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])).to(dtype)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_down_and_up_products_are_those_of_float64(rank, shape):
    x, down, up = random(*shape, 160), random(rank, 160), random(128, rank)
    inner = times(x, down)
    assert inner.shape == (*shape, rank)
    torch.testing.assert_close(inner.double(), x.double() @ down.double().T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(times(inner, up).double(), inner.double() @ up.double().T, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_product_is_added_in_place_or_beside(rank, in_place):
    y, x, w = random(70, 128), random(70, rank), random(128, rank)
    expected, kept = y.double() + x.double() @ w.double().T, y.clone()
    out = y if in_place else torch.full_like(y, float("nan"))
    add_times(y, x, w, out=out)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-4)
    assert in_place or torch.equal(y, kept)


@pytest.mark.parametrize("rank", RANKS)
def test_a_transposed_factor_is_taken_as_it_lies(rank):
    up, down = random(128, rank), random(rank, 160)
    torch.testing.assert_close(times(up, down.t()).double(), up.double() @ down.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_pass_through(rank):
    x, w = random(2, 5, 160).requires_grad_(), random(rank, 160)
    times(x, w).square().sum().backward()
    expected = 2 * (x.detach().double() @ w.double().T) @ w.double()
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_keep_theirs(dtype):
    assert times(random(4, 160, dtype=dtype), random(96, 160, dtype=dtype)).dtype == dtype


def test_each_route_is_the_one_it_is_taken_for(route):
    with torch.profiler.profile() as profile:
        times(random(4, 160), random(96, 160))
    assert any("conv" in event.key for event in profile.key_averages()) == (route == "convolved")
