"""What tests in several folders share."""

from __future__ import annotations

import gc

import pytest
import torch
from pretended_gpu import PretendedGpu


def pytest_collection_finish(session):
    """What has been imported stays: no collection of garbage, of which tests ask for many, is to look through it. The
    second one tells Python how little is left, from which it decides when to collect by itself."""
    gc.collect()
    gc.freeze()
    gc.collect()


@pytest.fixture(scope="module")
def one_thread():
    """For tiny models, whose layers are too small to share between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu():
    """A pretended one, which is there for the test."""
    with PretendedGpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; without one, or without playwright, the test is skipped."""
    chromium = pytest.importorskip("chromium", reason="playwright is not installed")
    if chromium.find_chromium() is None:
        pytest.skip(chromium.NONE)
    with chromium.launched() as browser:
        yield browser
