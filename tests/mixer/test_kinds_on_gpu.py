"""Kinds of deltas and ways of combining on a GPU: what the CPU gives, without waiting for the device, in few kernels,
and nothing that stays. What it takes is counted on a pretended one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from lora_files import TinyOpenClip
from lora_kinds import MATRICES, NEED_THE_WEIGHT, bias_delta, delta_of_kind, norm_delta
from pretended_gpu import PretendedGpu, moved
from pretended_gpu.marks import needs_pretended_gpu
from torch import nn

from sciart_ext.combine import masks, sparse
from sciart_ext.combine.settings import Combination, CombiningSettings
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.kinds import BIAS
from sciart_ext.lora.relative import Scaling
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import Target, open_clip_layers

pytestmark = needs_pretended_gpu

METHODS = ["orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune"]
SPARSE = METHODS[1:]
VECTORS = ["biases", "norms", "scaled biases"]
CASES = [*MATRICES, *VECTORS, *METHODS]
MODES = ["merge", "branch", "rows", "mixed rows"]
"""executions with equal rows, and rows that differ: neighbours alike, or not"""
ROWS = 4
FIRST, SECOND = (0.5, -0.3, 0.4), (0.2, 0.6, -0.1)


@pytest.fixture
def gpu():
    with PretendedGpu() as gpu:
        yield gpu


class Root(nn.Module):
    """A layer of each sort."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.unbiased = nn.Linear(16, 24), nn.Linear(24, 16, bias=False)
        self.conv, self.strided = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 24, 3, stride=2)
        self.pointwise = nn.Conv2d(24, 16, 1)
        self.group_norm, self.layer_norm = nn.GroupNorm(4, 16), nn.LayerNorm(16)

    def forward(self, x):
        x = self.pointwise(self.strided(self.conv(self.group_norm(x))))
        tokens = self.layer_norm(x.flatten(2).transpose(1, 2))
        return self.unbiased(self.linear(tokens))


def targets(root, untouched=None):
    return {f"unet_{name}": Target(module, "weight", root) for name, module in root.named_children()}


def loras_of(case):
    """Files of the kind on every layer that takes it, and the way in which they are combined."""
    root, found = Root(), []
    matrices = {name: target.weight().shape for name, target in targets(root).items() if not target.is_norm}
    for k in range(1 if case in MATRICES else 3):
        layers = {}
        if case in MATRICES:
            layers = {name: delta_of_kind(case, shape, i) for i, (name, shape) in enumerate(matrices.items())}
        elif case in METHODS:
            layers = {name: delta_of_kind("thin factors", shape, 10 * k + i, torch.float16)
                      for i, (name, shape) in enumerate(matrices.items())}
        elif case == "biases":
            layers = {name + BIAS: bias_delta(shape[0], 10 * k + i) for i, (name, shape) in enumerate(matrices.items())}
        elif case == "norms":
            layers = {name: norm_delta(16, k) for name in ("unet_group_norm", "unet_layer_norm")}
        else:
            layers = {f"unet_conv{BIAS}": Scaling(bias_delta(16, k).value, 0)}
        found.append(LoraFile(f"a{k}", Path(f"a{k}.safetensors"), "any", "unknown", layers))
    return found, Combination(case, CombiningSettings(density=0.4, directions=1)) if case in METHODS else None


class Bench:
    """One case, on one device."""

    def __init__(self, case, mode, device, dtype=torch.float32, **options):
        self.loras, combination = loras_of(case)
        self.root, self.mode, self.device = Root().to(device, dtype).requires_grad_(False), mode, device
        self.x = torch.randn(ROWS, 16, 6, 6, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        self.mixer = Mixer(self.root, targets(self.root), self.loras, combination=combination,
                           execution="merge" if mode == "merge" else "branch", **options)
        self.mixer.choose(Workload(20, 20, ROWS, 6, 6, rows_differ="rows" in mode))
        self.layers = len(self.mixer.layer_names)

    def call(self, gates, grad=False):
        gates, others = gates[:len(self.loras)], gates[::-1][:len(self.loras)]
        pattern = {"rows": [gates, gates, (0.0,) * len(gates), others], "mixed rows": [others, gates, others, gates]}
        self.mixer.set_gates(pattern.get(self.mode, [gates]))
        with torch.set_grad_enabled(grad):
            return self.root(self.x)


def results(case, mode, device, **options):
    """Of several settings of gates, one after the other."""
    bench = Bench(case, mode, device, **options)
    with bench.mixer:
        return [bench.call(gates).to("cpu") for gates in (FIRST, SECOND, (0.0, 0.0, 0.0), (0.5, 0.0, 0.3), FIRST)]


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_cpu_gives(gpu, case, mode, limit):
    for here, there in zip(results(case, mode, "cpu"), results(case, mode, "gpu", memory_limit=limit)):
        torch.testing.assert_close(there, here, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_nothing_waits_for_the_device(gpu, case, mode, limit):
    """But when the files' tensors are seen for the first time."""
    bench = Bench(case, mode, "gpu", memory_limit=limit)
    with bench.mixer:
        for gates in (FIRST, SECOND):
            bench.call(gates)
        with gpu.counting() as change:
            bench.call((0.3, -0.2, 0.1))
        with gpu.counting() as again:
            bench.call((0.3, -0.2, 0.1))
    assert not change.waits and not again.waits
    if limit is None:
        assert change.crossed <= 2048 and not again.crossed  # gates, and the places of rows, alone


# Kernels of one layer: merged at a change of gates; branched in a call, its own not counted; rows that differ.
BUDGET = {
    "thin factors": (1, 3, 3), "loha of a low rank": (1, 3, 3), "loha": (5, 8, 8), "loha with cores": (9, 11, 11),
    "lokr": (1, 3, 3), "full": (1, 2, 3), "dora by outputs": (9, 10, 11), "dora by inputs": (9, 10, 11),
    "dora of loha": (12, 12, 12), "ia3 by outputs": (2, 4, 4), "ia3 by inputs": (2, 4, 4), "oft": (4, 6, 6),
    "boft": (9, 10, 10), "glora": (8, 9, 9), "orthogonal": (2, 3, 6), "ties": (12, 3, 6), "dare-linear": (4, 3, 6),
    "dare-ties": (12, 3, 6), "magnitude-prune": (4, 3, 6),
}


@pytest.mark.parametrize("case", BUDGET)
def test_it_takes_few_kernels(gpu, case):
    counted = []
    for mode in MODES[:3]:
        bench = Bench(case, mode, "gpu", dtype=torch.float16)
        with gpu.counting() as plain, torch.no_grad():
            bench.root(bench.x)
        with bench.mixer:
            bench.call(FIRST)
            with gpu.counting() as counts:
                bench.call(SECOND if mode == "merge" else FIRST)
        counted.append((counts.kernels.total() - plain.kernels.total()) / bench.layers)
    assert all(found <= most for found, most in zip(counted, BUDGET[case])), counted
