"""The counts of `benchmarks.gpu --pretend` are those of tensors with numbers, and its settings those of recipes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pretended_gpu.marks import needs_pretended_gpu

from benchmarks import record
from benchmarks.cuda.stand_ins import COMBINING, GUIDANCE, MASKING
from sciart_ext.recipe.combining import CombiningSettings
from sciart_ext.recipe.guidance import GuidanceSettings
from sciart_ext.recipe.masking import MaskingSettings

SAME = """
import torch
from benchmarks.cuda import counted
from benchmarks.cuda.bench import SMALL, VARIANTS, Bench
from benchmarks.cuda.timed import card_bench
from tests.pretended_gpu import PretendedGpu, moved
from tests.pretended_gpu.hollow import HollowGpu

def counts(gpu, bench):
    plain = counted._settled(gpu, bench, VARIANTS[0])[-1]
    return {v.name: [counted._less(one, plain) for one in counted._settled(gpu, bench, v)] for v in VARIANTS[1:]}

with torch.no_grad():
    with HollowGpu() as gpu:
        hollow = counts(gpu, counted.hollow_bench(SMALL["sd15"], 4))
    here = card_bench(SMALL["sd15"], 4, torch.device("cpu"))
    with PretendedGpu() as gpu:
        numbers = counts(gpu, Bench(moved(here.unet), here.loras, here.latent))
assert hollow == numbers, (hollow, numbers)
assert all(one[-1]["kernels"] for name, one in hollow.items() if "change" in name or "branch" in name), hollow
print("the same")
"""


@needs_pretended_gpu
def test_counts_without_numbers_are_those_with_numbers():
    done = subprocess.run([sys.executable, "-c", SAME], cwd=record.ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "the same", done.stderr


@pytest.mark.parametrize("given, settings", [(GUIDANCE, GuidanceSettings), (COMBINING, CombiningSettings),
                                             (MASKING, MaskingSettings)])
def test_the_settings_are_the_recipes_defaults(given, settings):
    assert given == settings().dict()
