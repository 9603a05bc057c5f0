"""What the tests on a pretended GPU share: a model of a layer of each sort, LoRAs of each kind for it."""

from __future__ import annotations

from pathlib import Path

import torch
from lora_kinds import MATRICES, bias_delta, delta_of_kind, norm_delta
from torch import nn

from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.kinds import BIAS
from sciart_ext.lora.relative import Scaling
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import Target
from sciart_ext.recipe.combining import Combination, CombiningSettings

METHODS = ["orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune"]
SPARSE = METHODS[1:]
VECTORS = ["biases", "norms", "scaled biases"]
CASES = [*MATRICES, *VECTORS, *METHODS]
MODES = ["merge", "branch", "rows", "mixed rows"]
"""executions with equal rows, and rows that differ: neighbours alike, or not"""
ROWS = 4
FIRST, SECOND, THIRD = (0.5, -0.3, 0.4), (0.2, 0.6, -0.1), (0.6, -0.2, 0.3)
"""the largest first, last, second; second, first, last; as in the first"""
POSITIVE = (0.6, 0.2, 0.3)


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


def targets(root):
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

    def __init__(self, case, mode, device, dtype=torch.float32, layout=torch.contiguous_format, **options):
        self.loras, combination = loras_of(case)
        self.root = Root().to(dtype=dtype, memory_format=layout).to(device).requires_grad_(False)
        self.mode, self.device = mode, device
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


def results(case, mode, device, settings, **options):
    """Of several settings of gates, one after the other."""
    bench = Bench(case, mode, device, **options)
    with bench.mixer:
        return [bench.call(gates).to("cpu") for gates in settings]
