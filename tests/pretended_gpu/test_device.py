"""The pretended GPU itself: right values, devices that do not mix, and a device type that comes and goes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from . import PretendedGpu, moved
from .marks import needs_pretended_gpu

pytestmark = needs_pretended_gpu


def here_and_there(*shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return x, x.to("gpu")


def test_its_tensors_say_where_they_are_and_come_back_with_their_values(gpu):
    x, y = here_and_there(3, 4)
    assert y.device == torch.device("gpu:0") and y.is_cuda and not x.is_cuda
    assert torch.equal(y.cpu(), x) and torch.equal((y @ y.T + 1).cpu(), x @ x.T + 1)
    assert y.tolist() == x.tolist() and y[1, 2].item() == x[1, 2].item()
    assert torch.equal(y.new_tensor([1.0, 2.0]).cpu(), torch.tensor([1.0, 2.0]))
    assert torch.equal(torch.tensor([1, 2], device="gpu").cpu(), torch.as_tensor([1, 2], device="gpu").cpu())


@pytest.mark.parametrize("make", [
    lambda: torch.zeros(2, device="gpu"), lambda: torch.arange(3, device="gpu"), lambda: torch.randn(2, device="gpu"),
    lambda: torch.tensor(1.0, device="gpu"), lambda: torch.ones(2).to("gpu").new_zeros(3),
    lambda: torch.ones_like(torch.ones(2).to("gpu")), lambda: torch.ones(2).to("gpu") * torch.tensor(2.0),
    lambda: torch.where(torch.ones(2).to("gpu") > 0, 1.0, 0.0), lambda: torch.ones(2, 2).to("gpu")[[0, 1]]])
def test_what_is_made_there_or_of_what_is_there_stays_there(gpu, make):
    assert make().device.type == "gpu"


@pytest.mark.parametrize("mix", [
    lambda x, y: x + y, lambda x, y: y + x, lambda x, y: y @ x, lambda x, y: torch.cat([x, y]),
    lambda x, y: y.add_(x), lambda x, y: x.add_(y), lambda x, y: F.linear(y, x), lambda x, y: torch.stack([y, x]),
    lambda x, y: x[y.long()], lambda x, y: torch._foreach_add_([y], [x]), lambda x, y: torch.where(y > 0, y, x),
    lambda x, y: y.index_select(0, torch.tensor([0])), lambda x, y: y.index_put_((torch.tensor([0]),), x[:1])])
def test_devices_do_not_mix(gpu, mix):
    with pytest.raises(RuntimeError, match="same device"):
        mix(*here_and_there(2, 2))


def test_numbers_without_dimension_copies_and_indices_of_the_cpu_are_taken(gpu):
    x, y = here_and_there(3, 3)
    assert torch.equal((y * torch.tensor(2.0)).cpu(), x * 2)
    assert torch.equal(y[torch.tensor([2, 0])].cpu(), x[[2, 0]])
    assert torch.equal(torch.zeros(3, 3, device="gpu").copy_(x).cpu(), x)
    assert torch.equal(torch.zeros(3, 3).copy_(y), x)


def test_it_cannot_be_made_a_numpy_array(gpu):
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(2, device="gpu").numpy()


def test_views_share_memory_and_versions(gpu):
    x = torch.zeros(2, 3, device="gpu")
    row, before = x[1], x._version
    row.fill_(1.0)
    assert x.sum().item() == 3 and x._version > before and row._base is x
    assert row.data_ptr() == x.data_ptr() + 3 * x.element_size()


def test_gradients_are_the_cpus(gpu):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(2, 3, 6, 6)
    expected = torch.autograd.grad(net(x.requires_grad_()).square().sum(), x)[0]
    there = x.detach().to("gpu").requires_grad_()
    gradient = torch.autograd.grad(moved(net)(there).square().sum(), there)[0]
    assert gradient.device.type == "gpu" and torch.allclose(gradient.cpu(), expected, atol=1e-6)


def test_a_gradient_before_it_was_there_does_not_matter(gpu):
    x = torch.ones(2, requires_grad=True)
    x.sum().backward()
    y = torch.ones(2, device="gpu", requires_grad=True)
    y.square().sum().backward()
    assert y.grad.tolist() == [2, 2]


def test_a_moved_module_has_parameters_and_buffers_there_and_can_be_copied(gpu):
    net = moved(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    for one in (net, copy.deepcopy(net)):
        assert {tensor.device.type for tensor in one.state_dict().values()} == {"gpu"}
        assert all(isinstance(parameter, nn.Parameter) for parameter in one.parameters())
    assert moved(net).cpu()[0].weight.device.type == "cpu"


def test_within_autocast_products_are_rounded_and_norms_are_not(gpu):
    x, net = torch.ones(2, 4, device="gpu"), moved(nn.Linear(4, 4))
    with torch.autocast("gpu", dtype=torch.bfloat16):
        assert {(x @ x.T).dtype, net(x).dtype, torch.einsum("ij,kj->ik", x, x).dtype} == {torch.bfloat16}
        assert F.layer_norm(net(x), [4]).dtype == (x + 1).dtype == torch.float32
        with torch.autocast("gpu", enabled=False):
            assert (x @ x.T).dtype == torch.float32
    assert net(x).dtype == torch.float32


def test_it_is_there_within_its_context_only():
    with PretendedGpu():
        x = torch.ones(2, device="gpu")
        assert torch.gpu.is_available() and torch.accelerator.current_accelerator() == torch.device("gpu")
        with pytest.raises(RuntimeError, match="one pretended GPU at a time"), PretendedGpu():
            pass
    assert not torch.gpu.is_available() and not torch.accelerator.is_available()
    with pytest.raises(RuntimeError):
        torch.tensor([1.0], device="gpu")
    with pytest.raises(RuntimeError, match=r"outside of PretendedGpu"):
        x + 1
    with PretendedGpu():
        assert (x + 1).tolist() == [2, 2]
