"""The hollow GPU counts what the pretended one counts, and holds nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from . import PretendedGpu, moved
from .hollow import HollowGpu
from .marks import needs_pretended_gpu

pytestmark = needs_pretended_gpu


def counted(kind, run):
    with kind() as gpu:
        with gpu.counting() as counts:
            run()
        return counts.kernels, counts.launches, counts.waits.total(), counts.bytes, counts.crossed, gpu.memory.peak


def convolve_and_read():
    layers = moved(nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.SiLU(), nn.Flatten(2)))
    x = torch.ones(2, 4, 8, 8).to("gpu")
    with torch.no_grad():
        y = layers(x)
        y.add_(torch.tensor(1.0))[0, [1, 2]].mean().item()
        torch._foreach_copy_([y[0], y[1]], [y[1], y[0]])
        torch.addmm(y[0], y[1], torch.ones(64, 64, device="gpu"), out=y[0])
        return y.cpu()


def test_it_counts_what_one_with_numbers_counts():
    assert counted(HollowGpu, convolve_and_read) == counted(PretendedGpu, convolve_and_read)


def test_a_model_larger_than_any_memory_is_called():
    with torch.device("meta"):
        layer = nn.Linear(2**20, 2**20, bias=False).half()
    with HollowGpu(total_memory=2**50) as gpu:
        y = moved(layer)(torch.empty(1, 2**20, device="gpu", dtype=torch.float16))
        assert y.shape == (1, 2**20) and gpu.memory.live > 2**41


def test_attention_keeps_no_matrix_of_pixels_by_pixels_even_for_a_gradient():
    pixels = 2**14
    with HollowGpu(total_memory=2**36) as gpu:
        q = torch.empty(1, 8, pixels, 40, device="gpu", dtype=torch.float16, requires_grad=True)
        with gpu.counting() as counts:
            found = F.scaled_dot_product_attention(q, q, q)
            gradient, = torch.autograd.grad(found.sum(), q)
        assert gradient.shape == q.shape
        assert gpu.memory.peak < 2 * pixels * pixels
        assert counts.kernels["_scaled_dot_product_flash_attention"] == 1


def test_what_is_read_from_it_is_one_or_true():
    with HollowGpu():
        x = torch.zeros(2, 2, device="gpu")
        assert x.tolist() == [[1, 1], [1, 1]] and x.sum().item() == 1 and bool((x > 0).all())


def test_tensors_lie_at_addresses_of_their_own():
    with HollowGpu():
        x, y = (torch.empty(4, 4, device="gpu") for _ in range(2))
        assert len({x.data_ptr(), y.data_ptr(), x[1].data_ptr()}) == 3 and x.view(16).data_ptr() == x.data_ptr()


def test_the_number_of_what_is_not_zero_is_not_known():
    with HollowGpu(), pytest.raises(NotImplementedError):
        torch.zeros(2, 2, device="gpu").nonzero()


def test_a_product_added_in_place_reads_what_it_adds_to():
    with PretendedGpu() as gpu:
        y, x = (torch.ones(8, 8, device="gpu") for _ in range(2))
        with gpu.counting() as counts:
            torch.addmm(y, x, x, out=y)
        assert counts.bytes == 3 * 8 * 8 * 4  # y and x read, y written
