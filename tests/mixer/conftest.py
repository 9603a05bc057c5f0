"""Fixtures of the mixer's tests."""

import pytest
import torch
from mixer_bench import Bench, Snapshot

from sciart_ext.mixer.merged import MergedStack


@pytest.fixture(scope="module", autouse=True)
def one_thread_in_full_precision():
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_num_threads(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture(autouse=True)
def pretended_gpu(request):
    """The pretended GPU is there for tests whose parameter `device` is "gpu"."""
    if hasattr(request.node, "callspec") and request.node.callspec.params.get("device") == "gpu":
        request.getfixturevalue("gpu")


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def snapshot(bench):
    """The model is looked at before and after every test that asks for this."""
    taken = Snapshot(bench.unet)
    yield taken
    taken.assert_restored()


@pytest.fixture
def rebuilt(monkeypatch):
    """The names of the layers that have been merged since it was cleared."""
    names, write = [], MergedStack.write

    def counted(stack, stale, gates, ranks):
        names.extend(slot.layers[0].name for slot in stale)
        write(stack, stale, gates, ranks)

    monkeypatch.setattr(MergedStack, "write", counted)
    return names
