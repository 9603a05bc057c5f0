"""What `python -m benchmarks.steer --parts time` measures is there to be measured."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from benchmarks.steering_cost import ALSO, TIMED, CostBench


def test_every_way_makes_a_picture_and_the_gradient_is_found():
    bench = CostBench("reduced", size=64, steps=2, device="cpu")
    assert all(bench.run(variant) > 0 for variant in (*TIMED, *ALSO))
    assert bench.gradient(early_end=True) > 0 and bench.gradient(early_end=False) > 0
