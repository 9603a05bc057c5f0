"""Whatever a file holds: what the list calls fine loads, the rest is refused by both, and neither takes long."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from promises import check_file
from strangers import PICKLES, safetensors

LONGEST = 5.0
"""seconds of processor time on any machine; benchmarks measure it closer"""
OFTEN = settings(max_examples=300, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                        HealthCheck.data_too_large])


def check(path):
    before = time.process_time()
    check_file(path)
    assert time.process_time() - before < LONGEST


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
