"""Fixtures of the tests on the pretended GPU."""

import pytest

from . import PretendedGpu


@pytest.fixture
def gpu():
    """One that is there for the test."""
    with PretendedGpu() as gpu:
        yield gpu
