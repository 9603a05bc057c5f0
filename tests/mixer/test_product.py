"""Products with stacked factors: the same numbers by either route."""

from __future__ import annotations

import functools
from contextlib import contextmanager

import pytest
import torch

from sciart_ext.mixer import product
from sciart_ext.mixer.product import add_times, times, unrounded

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


DEVICE_TYPES = ["cpu", "cuda", "mps", "xpu", "hpu", "xla", "ipu", "mtia", "vulkan", "meta", "privateuseone"]


@pytest.mark.parametrize("kind", DEVICE_TYPES)
def test_a_hosts_autocast_is_off_on_every_type_of_device_that_has_one_and_others_raise_nothing(kind):
    device = torch.device(kind)
    if not has_autocast(kind):
        with unrounded(device):
            return
    with switched_on(kind):
        with unrounded(device):
            assert not is_on(kind)
        assert is_on(kind)
    assert not is_on(kind)


def has_autocast(kind):
    """As torch itself says; older ones, which cannot be asked, have it on these."""
    asked = getattr(torch.amp, "is_autocast_available", {"cpu", "cuda"}.__contains__)
    return asked(kind) and kind != "privateuseone"  # of which torch says yes without a backend behind it


def is_on(kind):
    return torch.is_autocast_enabled(kind) if hasattr(torch.amp, "is_autocast_available") else {
        "cpu": torch.is_autocast_cpu_enabled, "cuda": torch.is_autocast_enabled}[kind]()


@contextmanager
def switched_on(kind):
    """Without the device: torch.autocast itself would not switch it on."""
    switch = functools.partial(torch.set_autocast_enabled, kind) if hasattr(torch.amp, "is_autocast_available") else {
        "cpu": torch.set_autocast_cpu_enabled, "cuda": torch.set_autocast_enabled}[kind]
    switch(True)
    try:
        yield
    finally:
        switch(False)


def test_a_hosts_tf32_costs_a_merge_less_than_half_precision_rounds_the_weight():
    """The reason why it is left on: as a host has it, who computes its own LoRAs so."""
    weight = 0.05 * random(320, 768)
    up, down = 0.005 * random(320, 32), random(32, 768)
    exact = weight.double() + up.double() @ down.double()
    assert 0.4 < (exact - weight).std() / weight.std() < 0.8  # more than LoRAs change a weight by
    merged = weight.double() + as_tf32(up).double() @ as_tf32(down).double()
    assert (merged - exact).std() < (exact.half().double() - exact).std()


def as_tf32(x):
    """float32 with 10 bits of mantissa, rounded to the nearest."""
    bits = x.view(torch.int32)
    return (((bits + 0xFFF + ((bits >> 13) & 1)) >> 13) << 13).view(torch.float32)
