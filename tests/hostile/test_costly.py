"""Files that are made to take memory take no more than three times their size and 64 MB, and end as all others do."""

from __future__ import annotations

import sys

import pytest
from costly import LARGE, SUFFIXED, layers, safetensors

from sciart_ext.lora.file import load_lora

if sys.platform != "linux":
    pytest.skip("memory is told by /proc", allow_module_level=True)
from measuring import taken

MOST_MB = 64
LARGE_ENOUGH = ("scaled f16 of 200 MB.safetensors", "6 MB of names.safetensors", "an archive of 200 MB.pt")


@pytest.fixture(autouse=True)
def warm(tmp_path):
    """What every process does once."""
    load_lora(safetensors(tmp_path / "warm.safetensors", layers(2)))


@pytest.mark.parametrize("name", [*SUFFIXED, *LARGE_ENOUGH])
def test_it_ends_as_promised_in_little_memory(tmp_path, name):
    of = taken({**SUFFIXED, **LARGE}[name](tmp_path / name), rounds=1)
    assert of.wrong is None
    assert of.megabytes <= MOST_MB
