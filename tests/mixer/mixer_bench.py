"""What the tests of the mixer share: a tiny UNet with LoRAs for it, dense weights to compare with, a snapshot."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from lora_files import deltas_for, matrices, tiny_unet
from pretended_gpu.marks import needs_pretended_gpu
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.lora.blocks import group_of
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_CUDA = [needs_cuda, pytest.mark.cuda]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_CUDA)]
WITH_PRETENDED = [*DEVICES, pytest.param("gpu", marks=needs_pretended_gpu)]
"""for tests whose parameter `device` is "gpu" conftest has the pretended one there"""
LAYOUTS_AND_DEVICES = [pytest.param(layout, device, marks=marks) for device, layouts, marks in (
    ("cpu", ("sd1", "sdxl"), ()), ("cuda", ("sd1", "sdxl"), ON_CUDA), ("gpu", ("sd1",), needs_pretended_gpu))
    for layout in layouts]
"""one layout is enough where an operator takes fifty times as long"""
DTYPES = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
EXECUTIONS = ["merge", "branch"]


def skip_where_torch_lacks(dtype: torch.dtype, device: str) -> None:
    """torch before 2.2 cannot multiply float16 on a CPU: no model runs there, with or without LoRAs."""
    try:
        torch.ones(2, 2, dtype=dtype, device=device) @ torch.ones(2, 2, dtype=dtype, device=device)
    except RuntimeError as error:
        pytest.skip(f"torch {torch.__version__}: {error}")


TEXT = 3


class Bench:
    """A UNet, inputs for it, and LoRAs that reach its layers. It has every kind of layer that the layout's real UNet
    has, at every level one block in place of two."""

    def __init__(self, layout="sd1", dtype=torch.float32, device="cpu", **changes):
        self.unet = tiny_unet(layout, **{"layers_per_block": 1, **changes}).to(device, dtype)
        self.modules = matrices(self.unet)
        self.layers = diffusers_unet_layers(self.unet)
        self.dtype, self.device, self.added = dtype, device, layout == "sdxl"

    def lora(self, pattern="", rank=2, seed=1, dtype=torch.float32, alpha=None, size=1.0):
        """A LoRA on the layers whose diffusers name contains one of the patterns."""
        patterns = (pattern,) if isinstance(pattern, str) else pattern
        names = {name: module for name, module in self.modules.items() if any(part in name for part in patterns)}
        deltas = deltas_for(names, rank, seed, dtype, size)
        scale = 1.0 if alpha is None else alpha / rank
        layers = {layer_name(f"unet.{name}"): LowRank(*pair, scale) for name, pair in deltas.items()}
        return LoraFile(f"lora{seed}", Path(f"lora{seed}.safetensors"), "LoRA", "unknown", layers)

    def inputs(self, rows=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        channels = self.unet.config.in_channels
        x = torch.randn(rows, channels, 8, 8, generator=generator).to(self.device, self.dtype)
        text = torch.randn(rows, TEXT, 12, generator=generator).to(self.device, self.dtype)
        return x, text

    def __call__(self, x, text, grad=False):
        return run(self.unet, x, text, self.added, grad)

    def mixer(self, loras, execution="auto", work=None, **options):
        """A mixer that has chosen for a pass in which rows may differ only where it branches."""
        mixer = Mixer(self.unet, self.layers, loras, execution=execution, **options)
        mixer.choose(work or workload(rows_differ=execution == "branch"))
        return mixer


@functools.cache
def shared_bench(layout, dtype, device):
    """For tests that say themselves that they leave it as it was."""
    return Bench(layout, dtype, device)


def run(unet, x, text, added=False, grad=False):
    """The UNet's output at time 7."""
    extra = {"text_embeds": x.new_zeros(len(x), 8) + 0.1, "time_ids": x.new_ones(len(x), 6)} if added else None
    with torch.set_grad_enabled(grad):
        return unet(x, 7, text, added_cond_kwargs=extra).sample


def workload(rows_differ=False, calls=20, changes=20):
    return Workload(calls, changes, 2, 8, 8, TEXT, rows_differ)


def dense_weight(weight, name, loras, gates, blocks=None):
    """W + Σ λ·s·b·B·A in float64, from the files' factors alone; flattened matrices, in the weight's shape."""
    total = weight.detach().double().cpu()
    for k, (lora, gate) in enumerate(zip(loras, gates)):
        if name in lora.layers:
            down, up, scale = lora.layers[name]
            factor = blocks[k].get(group_of(name), 1.0) if blocks else 1.0
            delta = up.double().flatten(1) @ down.double().flatten(1)
            total = total + gate * scale * factor * delta.view(total.shape)
    return total


def wide_copy(model):
    """A float64 copy on the CPU, without the hooks that are on the model now."""
    wide = copy.deepcopy(model).double().cpu()
    for module in wide.modules():
        for hooks in Snapshot.HOOKS:
            getattr(module, hooks).clear()
    return wide


def dense_unet(bench, loras, gates, blocks=None):
    """A float64 copy of the UNet that has the LoRAs added to its weights."""
    unet = wide_copy(bench.unet)
    for name, target in diffusers_unet_layers(unet).items():
        original = bench.layers[name].weight()
        target.module.weight = nn.Parameter(dense_weight(original, name, loras, gates, blocks))
    return unet


def dense(bench, x, text, loras, gates, blocks=None):
    return run(dense_unet(bench, loras, gates, blocks), x.double().cpu(), text.double().cpu(), bench.added)


def assert_near(actual, expected, tolerance):
    """Within `tolerance` of the largest number expected."""
    error = (actual.double().cpu() - expected.double().cpu()).abs().max() / expected.double().abs().max()
    assert error < tolerance, f"relative error {error:.2e}"


class Snapshot:
    """What a model is made of, to say afterwards whether it was left as it was."""

    HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs",
             "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks")

    def __init__(self, model):
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.versions = {name: parameter._version for name, parameter in self.parameters.items()}
        self.values = {name: value.clone() for name, value in model.state_dict().items()}
        self.attributes = {name: set(vars(module)) for name, module in model.named_modules()}
        self.hooks = self.count_hooks()

    def count_hooks(self):
        return {name: [len(vars(module)[hooks]) for hooks in self.HOOKS]
                for name, module in self.model.named_modules()}

    def assert_unwritten(self):
        """The parameters are the same objects with the same bits, never written."""
        now = dict(self.model.named_parameters())
        assert now.keys() == self.parameters.keys()
        for name, parameter in now.items():
            assert parameter is self.parameters[name], name
            assert parameter._version == self.versions[name], name
        for name, value in self.model.state_dict().items():
            assert torch.equal(_bits(value), _bits(self.values[name])), name

    def assert_restored(self):
        """And no hook or attribute is left."""
        self.assert_unwritten()
        assert self.count_hooks() == self.hooks
        assert {name: set(vars(module)) for name, module in self.model.named_modules()} == self.attributes


def _bits(tensor):
    """The same memory as whole numbers."""
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


class Interrupted(Exception):
    pass


def at_layer(bench, module):
    """What the layer is given and gives in a call of the UNet, which ends there."""
    seen = []

    def keep(module, args, y):
        seen.append((args[0], y.clone()))
        raise Interrupted

    with module.register_forward_hook(keep), pytest.raises(Interrupted):
        bench(*bench.inputs())
    return seen[0]
