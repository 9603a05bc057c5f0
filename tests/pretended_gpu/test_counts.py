"""What the pretended GPU counts: kernels, launches, waits, bytes."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.compose.fusion import Average, fused

from .costs import BLOCK, foreach_launches
from .marks import needs_pretended_gpu

pytestmark = needs_pretended_gpu


@pytest.fixture
def counted(gpu):
    def count(run, *args):
        with gpu.counting() as counts:
            run(*args)
        return counts
    return count


def test_views_and_allocations_are_no_kernels(counted):
    x = torch.ones(4, 6, device="gpu")
    counts = counted(lambda: (x.t(), x.view(24), x[1:3], x[0], x.expand(2, 4, 6), x.unbind(), x.split(2), x.detach(),
                              x.narrow(0, 0, 1), x.unsqueeze(0).permute(2, 0, 1), x.diagonal(), torch.empty_like(x),
                              torch.empty(3, device="gpu"), x.new_empty(2), x.reshape(3, 8)))
    assert not counts.kernels and not counts.launches and not counts.waits and not counts.bytes


def test_every_operator_is_a_kernel(counted):
    x = torch.ones(4, 4, device="gpu")
    counts = counted(lambda: (x @ x, x.add_(1), torch.cat([x, x]), x.half(), x.zero_(), torch.zeros_like(x)))
    assert counts.kernels == {"mm": 1, "add_": 1, "cat": 1, "_to_copy": 1, "zero_": 1, "zeros_like": 1}
    assert counts.launches == 6 and not counts.waits


def test_a_copy_between_devices_is_a_launch_but_no_kernel(counted):
    x, y = torch.ones(4, 4), torch.ones(4, 4, device="gpu")
    counts = counted(lambda: (x.to("gpu"), y.cpu(), y.copy_(x), x.copy_(y), y.to("cpu", non_blocking=True)))
    assert not counts.kernels and counts.launches == 5 and counts.crossed == 5 * 64 and not counts.bytes


WAITING = {
    "a number": lambda x, y: y.sum().item(), "a list": lambda x, y: y.tolist(), "a question": lambda x, y: bool(y[0]),
    "an equality": lambda x, y: torch.equal(y, y), "places": lambda x, y: y.nonzero(), "a mask": lambda x, y: y[y > 0],
    "what is set by a mask": lambda x, y: y.index_put_((y > 0,), torch.tensor(1.0)),
    "indices of the CPU": lambda x, y: y[torch.tensor([0])], "a list as index": lambda x, y: y[[0, 1]],
    "a checked inverse": lambda x, y: torch.linalg.inv(torch.eye(2, device="gpu")),
    "repeats": lambda x, y: y.repeat_interleave(torch.ones_like(y).long()),
    "from the host": lambda x, y: x.to("gpu", non_blocking=True), "copied over": lambda x, y: y.copy_(x),
    "from pinned memory, waited for": lambda x, y: x.pin_memory().to("gpu"),
    "from pinned memory, converted": lambda x, y: x.pin_memory().to("gpu", torch.float16, non_blocking=True),
    "from pinned memory, gathered": lambda x, y: y.copy_(x.pin_memory()[::2].repeat(2)[::2].expand(2, 2)[0]),
    "to the host": lambda x, y: y.cpu(), "into memory not pinned": lambda x, y: x.copy_(y, non_blocking=True),
    "made there from numbers": lambda x, y: torch.tensor([1.0], device="gpu"),
    "synchronize": lambda x, y: torch.gpu.synchronize(),
}


@pytest.mark.parametrize("what", WAITING)
def test_the_host_waits_for(counted, what):
    x, y = torch.ones(2), torch.ones(2, device="gpu")
    assert counted(WAITING[what], x, y).waits.total() >= 1


FREE = {
    "from pinned memory": lambda x, y: x.to("gpu", non_blocking=True),
    "copied from pinned memory": lambda x, y: y.copy_(x, non_blocking=True),
    "a part of pinned memory": lambda x, y: x[:1].to("gpu", non_blocking=True),
    "into pinned memory": lambda x, y: x.copy_(y, non_blocking=True),
    "to the host, later": lambda x, y: y.to("cpu", non_blocking=True),
    "a number of the CPU": lambda x, y: y * torch.tensor(2.0), "a number": lambda x, y: y.fill_(2.0),
    "indices that are there": lambda x, y: y[torch.zeros_like(y).long()],
    "a cast": lambda x, y: y.half(), "an unchecked inverse": lambda x, y: torch.linalg.inv_ex(torch.eye(
        2, device="gpu")),
    "repeats of a known size": lambda x, y: y.repeat_interleave(torch.ones_like(y).long(), output_size=2),
    "repeats of one number": lambda x, y: y.repeat_interleave(2),
}


@pytest.mark.parametrize("what", FREE)
def test_the_host_does_not_wait_for(counted, what):
    x, y = torch.ones(2).pin_memory(), torch.ones(2, device="gpu")
    assert not counted(FREE[what], x, y).waits


def test_a_wait_is_told_by_the_engines_own_line(counted):
    cond = torch.ones(1, 2, 4, 2, 2, device="gpu")
    weights = Average().weights(torch.ones(1, 2, 4, 2, 2), 0.0, lambda noise: noise)
    (operator, line), = counted(fused, cond, cond, weights).waits
    assert operator == "_to_copy" and line.startswith("compose/fusion.py:")
    assert list(counted(lambda: cond.cpu()).waits) == [("_to_copy", "elsewhere")]


def test_bytes_are_what_kernels_read_and_write(counted):
    x, row = torch.ones(8, 16, device="gpu"), torch.ones(16, device="gpu")
    size = 8 * 16 * 4
    assert counted(lambda: x + x.clone()).bytes == 2 * size + 3 * size
    assert counted(lambda: x.add_(row)).bytes == 2 * size + 64
    assert counted(lambda: x.mul(row.expand(8, 16))).bytes == 2 * size + 64, "a broadcast's numbers count once"
    assert counted(lambda: x.half()).bytes == size + size // 2
    assert counted(lambda: (x.zero_(), x.copy_(row.expand(8, 16)))).bytes == 2 * size + 64, "not read"
    assert counted(lambda: x.index_select(0, torch.zeros_like(row[:1]).long())).bytes - counted(
        lambda: torch.zeros_like(row[:1]).long()).bytes == 64 + 64 + 8, "as much as it gives, and the index"


def test_an_operator_over_lists_is_one_kernel_in_as_many_launches_as_torch_cuts_it(counted):
    few, many = ([torch.ones(3, device="gpu") for _ in range(n)] for n in (64, 65))
    counts = counted(lambda: (torch._foreach_copy_(few, few), torch._foreach_copy_(many, many)))
    assert counts.kernels == {"_foreach_copy_": 2} and counts.launches == 1 + 2
    counts = counted(lambda: torch._foreach_add(few, few))
    assert counts.kernels == {"_foreach_add": 1} and counts.launches == 2, "three lists: 48 tensors at most"
    columns = [torch.ones(3, 3, device="gpu").t() for _ in range(2)]
    counts = counted(lambda: torch._foreach_copy_(columns, [torch.ones(3, 3, device="gpu") for _ in range(2)]))
    assert counts.kernels["_foreach_copy_"] == 2, "of other strides: one by one"


def test_blocks_cut_launches_too():
    def launches(*sizes):
        tensors = [torch.empty(size, device="meta") for size in sizes]
        return foreach_launches([tensors, tensors])

    assert launches(BLOCK * 320) == 1 and launches(BLOCK * 320 + 1) == 2 and launches(BLOCK * 200, BLOCK * 200) == 2
    assert launches(*[1] * 64, BLOCK * 320) == 2 and launches(1, BLOCK * 641) == 3
