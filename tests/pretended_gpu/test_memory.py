"""The pretended GPU's memory: what lives on it, its peak, what it refuses; and pinned memory beside it."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.memory import is_out_of_memory

from . import PretendedGpu
from .marks import needs_pretended_gpu

pytestmark = needs_pretended_gpu


def test_live_bytes_are_those_of_storages_that_something_holds(gpu):
    x = torch.zeros(256, device="gpu")
    part = x[:10]
    assert gpu.memory.live == torch.gpu.memory_allocated() == 1024
    del x
    assert gpu.memory.live == 1024, "a part of it is held"
    kept = part.clone()
    del part
    assert gpu.memory.live == kept.nbytes and gpu.memory.peak == torch.gpu.max_memory_allocated() == 1024 + kept.nbytes
    torch.gpu.reset_peak_memory_stats()
    assert gpu.memory.peak == kept.nbytes


def test_what_a_gradient_needs_is_held_until_it_is_there(gpu):
    x = torch.ones(256, device="gpu", requires_grad=True)
    y = (x * 2).square().sum()
    held = gpu.memory.live
    y.backward()
    assert held > gpu.memory.live + 1000 - x.grad.nbytes and x.grad.nbytes == 1024


def test_beyond_the_limit_an_allocation_fails_as_cudas_and_takes_nothing(gpu):
    x = torch.zeros(256, device="gpu")
    gpu.memory.limit = 1500
    with pytest.raises(torch.cuda.OutOfMemoryError, match="CUDA out of memory") as error:
        x + 1
    assert is_out_of_memory(error.value) and gpu.memory.live == 1024
    x.add_(1)
    gpu.memory.limit = 2048
    assert (x + 1)[0].item() == 2


def test_a_program_can_ask_for_its_memory():
    with PretendedGpu(total_memory=2**30, limit=2**29):
        x = torch.zeros(2**20, device="gpu")
        module = getattr(torch, x.device.type)
        assert module.get_device_properties(x.device).total_memory == 2**30
        assert module.mem_get_info(x.device) == (2**29 - 2**22, 2**30)


def test_pinned_memory_is_known_by_its_parts_too(gpu):
    made = [torch.ones(4).pin_memory(), torch.tensor([1.0, 2.0], pin_memory=True), torch.empty(3, pin_memory=True),
            torch.zeros(2, pin_memory=True), torch.ones(2, device="gpu").to("cpu", non_blocking=True)]
    assert all(one.is_pinned() and one[:1].is_pinned() and one.pin_memory() is one for one in made)
    assert not torch.ones(4).is_pinned() and not made[0].clone().is_pinned()
    assert not torch.ones(2, device="gpu").is_pinned()
    with pytest.raises(RuntimeError, match="cannot pin"):
        torch.ones(2, device="gpu").pin_memory()
