"""Whatever a file holds: what the list calls fine loads, the rest is refused by both, and neither takes long."""

from __future__ import annotations

import time
import warnings

import torch
from hypothesis import HealthCheck, given, settings
from strangers import PICKLES, safetensors

from sciart_ext.errors import SciArtError
from sciart_ext.lora.exact_factors import has_directions, needs_model
from sciart_ext.lora.file import inspect_lora, load_lora

LONGEST = 5.0
"""seconds of processor time on any machine; benchmarks measure it closer"""
OFTEN = settings(max_examples=1500, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                        HealthCheck.data_too_large])


def read(reader, path):
    """What it gives, or the refusal."""
    before = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reader(path), None
    except SciArtError as refusal:
        assert refusal.field == path.name and len(refusal.message) < 1500
        return None, str(refusal)
    finally:
        assert time.process_time() - before < LONGEST


def check(path):
    listed, refusal = read(inspect_lora, path)
    lora, again = read(load_lora, path)
    assert refusal == again
    if lora is None:
        return
    assert listed == lora.report()
    for name, delta in lora.layers.items():
        assert all(torch.isfinite(tensor).all() for tensor in delta.tensors)
        if has_directions(name, delta) and not needs_model(delta):
            assert len(delta.shape) in (2, 4) and min(delta.shape) > 0


@OFTEN
@given(data=safetensors())
def test_a_safetensors_file(tmp_path, data):
    path = tmp_path / "stranger.safetensors"
    path.write_bytes(data)
    check(path)


@OFTEN
@given(data=PICKLES)
def test_a_pickle(tmp_path, data):
    path = tmp_path / "stranger.pt"
    path.write_bytes(data)
    check(path)
