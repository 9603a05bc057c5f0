"""What the tests of the kinds of deltas share: files of them, and the dense weights that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_kinds import bias_delta, delta_of_kind, norm_delta
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import (
    DTYPES,
    EXECUTIONS,
    Snapshot,
    assert_near,
    at_layer,
    run,
    wide_copy,
)

from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.kinds import BIAS
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.targets import diffusers_unet_layers

LAYERS = {
    "linear": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "feed-forward": "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "3 × 3": "down_blocks.1.resnets.0.conv1",
    "1 × 1": "down_blocks.0.attentions.0.proj_in",
    "strided": "down_blocks.0.downsamplers.0.conv",
    "circular": "up_blocks.1.upsamplers.0.conv",
}
VECTORS = {
    "bias of a linear layer": "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    "bias of a convolution": "down_blocks.1.resnets.0.conv1",
    "bias where there is none": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "bias of a group norm": "up_blocks.1.resnets.0.norm1",
    "bias of a layer norm": "mid_block.attentions.0.transformer_blocks.0.norm2",
    "weight of a group norm": "down_blocks.0.resnets.0.norm2",
    "weight of a layer norm": "up_blocks.2.attentions.0.transformer_blocks.0.norm3",
}


def file_of(layers, name="a"):
    return LoraFile(name, Path(f"{name}.safetensors"), "any", "unknown", layers)


def lora_of_kind(bench, kind, names, seed=0, dtype=torch.float32):
    """The kind on these layers (diffusers' names, of matrices)."""
    return file_of({layer_name(f"unet.{name}"): delta_of_kind(kind, bench.modules[name].weight.shape, seed + i, dtype)
                    for i, name in enumerate(names)})


def vector_lora(unet, name, of, seed=0, dtype=torch.float32):
    module = unet.get_submodule(name)
    size = len(module.weight)
    if of.startswith("bias"):
        return file_of({layer_name(f"unet.{name}") + BIAS: bias_delta(size, seed, dtype)})
    return file_of({layer_name(f"unet.{name}"): norm_delta(size, seed, dtype)})


def changed(value, name, loras, gates, shape=None):
    """W + Σ λ·ΔW(W) in float64, every ΔW from the same W; a bias that is not there is zero."""
    value = torch.zeros(shape, dtype=torch.float64) if value is None else value.detach().double().cpu()
    return sum((gate * lora.layers[name].of(value) for lora, gate in zip(loras, gates) if name in lora.layers), value)


def dense(layers, wide_layers, loras, gates):
    """Puts W + Σ λ·ΔW(W) in place of the weights and biases of the copy's layers."""
    for name, target in layers.items():
        for ending, own, wide in (("", target, wide_layers[name]), (BIAS, target.bias(), wide_layers[name].bias())):
            if any(name + ending in lora.layers for lora in loras):
                total = changed(own.weight(), name + ending, loras, gates, len(target.weight()))
                wide.module._parameters[wide.parameter] = nn.Parameter(total, requires_grad=False)


def dense_unet(bench, loras, gates):
    wide = wide_copy(bench.unet)
    dense(bench.layers, diffusers_unet_layers(wide), loras, gates)
    return wide


def output_of(bench, x, text, loras, gates):
    return run(dense_unet(bench, loras, gates), x.double().cpu(), text.double().cpu(), bench.added)


def layer_outputs(bench, name, loras, rows, execution):
    """What the layer is given and gives."""
    with bench.mixer(loras, execution) as mixer:
        mixer.set_gates(rows)
        return at_layer(bench, bench.unet.get_submodule(name))


def expected_output(bench, name, x, loras, rows):
    """Each row through the layer with its own dense weights, in float64."""
    module, canonical = bench.unet.get_submodule(name), layer_name(f"unet.{name}")
    outputs = []
    for i, gates in enumerate(rows if len(rows) > 1 else rows * len(x)):
        wide = wide_copy(module)
        wide.weight = nn.Parameter(changed(module.weight, canonical, loras, gates))
        if any(canonical + BIAS in lora.layers for lora in loras):
            wide.bias = nn.Parameter(changed(module.bias, canonical + BIAS, loras, gates, len(module.weight)))
        with torch.no_grad():
            outputs.append(wide(x[i:i + 1].double().cpu()))
    return torch.cat(outputs)


def assert_layer(bench, name, loras, dtype, rows=((0.7, -0.4),)):
    """Under both executions, or branches where rows differ."""
    snapshot, outputs = Snapshot(bench.unet), {}
    executions = EXECUTIONS if len(rows) == 1 else ["branch"]
    for execution in executions:
        x, outputs[execution] = layer_outputs(bench, name, loras, list(rows), execution)
        expected = expected_output(bench, name, x, loras, list(rows))
        assert_near(outputs[execution], expected, DTYPES[dtype])
        plain = expected_output(bench, name, x, loras, [(0.0, 0.0)])
        assert (expected - plain).abs().max() > 5 * DTYPES[dtype] * expected.abs().max(), "the LoRA must matter here"
    snapshot.assert_restored()
