"""The two executions of the mixer give one result, that of dense weights, for every layer kind and dtype."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import (
    DEVICES,
    DTYPES,
    EXECUTIONS,
    LAYOUTS_AND_DEVICES,
    Bench,
    Snapshot,
    assert_near,
    at_layer,
    dense,
    dense_unet,
    dense_weight,
    run,
    shared_bench,
    skip_where_torch_lacks,
    wide_copy,
)

from sciart_ext.lora.blocks import group_of
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer import merged

KINDS = {
    "attention to_q": ("sd1", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
    "cross-attention to_k": ("sd1", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"),
    "attention to_out": ("sd1", "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"),
    "feed-forward in": ("sd1", "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"),
    "feed-forward out": ("sd1", "up_blocks.2.attentions.1.transformer_blocks.0.ff.net.2"),
    "proj_in, convolution": ("sd1", "down_blocks.0.attentions.0.proj_in"),
    "proj_in, linear": ("sdxl", "down_blocks.1.attentions.0.proj_in"),
    "proj_out, linear": ("sdxl", "up_blocks.0.attentions.1.proj_out"),
    "3 × 3": ("sd1", "down_blocks.1.resnets.0.conv1"),
    "1 × 1": ("sd1", "down_blocks.1.resnets.0.conv_shortcut"),
    "strided": ("sd1", "down_blocks.0.downsamplers.0.conv"),
    "upsampler": ("sd1", "up_blocks.1.upsamplers.0.conv"),
    "first convolution": ("sd1", "conv_in"),
    "last convolution": ("sd1", "conv_out"),
    "time embedding": ("sd1", "time_embedding.linear_1"),
    "time projection": ("sd1", "mid_block.resnets.1.time_emb_proj"),
    "size embedding": ("sdxl", "add_embedding.linear_2"),
    "circular 3 × 3": ("sd1", "down_blocks.1.resnets.0.conv1"),
    "circular strided": ("sd1", "down_blocks.0.downsamplers.0.conv"),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_gives_what_the_dense_weight_gives_under_both_executions(kind, dtype, device, monkeypatch):
    skip_where_torch_lacks(dtype, device)
    layout, name = KINDS[kind]
    bench = shared_bench(layout, dtype, device)
    if kind.startswith("circular"):  # as the host does for tiling
        for module in bench.modules.values():
            if isinstance(module, nn.Conv2d):
                monkeypatch.setattr(module, "padding_mode", "circular")
    snapshot = Snapshot(bench.unet)
    loras = [bench.lora(name, rank=2, seed=1, dtype=torch.float16, alpha=3.0, size=3.0),
             bench.lora(name, rank=5, seed=2, dtype=torch.bfloat16, size=3.0)]
    canonical, gates = layer_name(f"unet.{name}"), (0.7, -0.4)
    assert canonical in loras[0].layers
    module, outputs = bench.modules[name], {}
    for execution in EXECUTIONS:
        mixer = bench.mixer(loras, execution)
        assert (mixer.merged_names == set(mixer.layer_names)) == (execution == "merge")
        with mixer:
            mixer.set_gates([gates])
            x, outputs[execution] = at_layer(bench, module)
        wide = wide_copy(module)
        with torch.no_grad():
            plain = wide(x.double().cpu())
            wide.weight.copy_(dense_weight(module.weight, canonical, loras, gates))
            expected = wide(x.double().cpu())
        assert_near(outputs[execution], expected, DTYPES[dtype])
        assert (expected - plain).abs().max() > 5 * DTYPES[dtype] * expected.abs().max(), "the LoRA must matter here"
    assert_near(outputs["branch"], outputs["merge"], DTYPES[dtype])
    snapshot.assert_restored()


def three_loras(bench):
    """On all layers and on some, in files of three precisions."""
    return [bench.lora(rank=2, seed=1, alpha=1.0, dtype=torch.float16), bench.lora(("attn", "conv1"), rank=3, seed=2),
            bench.lora("ff.net", rank=8, seed=3, dtype=torch.float64)]


@functools.cache
def with_three_loras(layout, gates):
    """What dense weights give on the CPU: model, LoRAs and inputs are the same on every device."""
    bench = shared_bench(layout, torch.float32, "cpu")
    return dense(bench, *bench.inputs(), three_loras(bench), gates)


@pytest.mark.parametrize(("layout", "device"), LAYOUTS_AND_DEVICES)
@pytest.mark.parametrize("execution", [*EXECUTIONS, "auto"])
def test_loras_on_all_layers_at_once_give_what_dense_weights_give(layout, execution, device):
    bench = Bench(layout, device=device)
    snapshot = Snapshot(bench.unet)
    loras, (x, text) = three_loras(bench), bench.inputs()
    mixer = bench.mixer(loras, execution)
    for gates in ((0.5, 0.0, 0.0), (0.5, -0.3, 0.2), (0.0, 0.6, 0.1)):
        with mixer:
            mixer.set_gates([gates])
            actual = bench(x, text)
        assert_near(actual, with_three_loras(layout, gates), 2e-5)
        snapshot.assert_restored()


def test_both_executions_agree_when_memory_is_channels_last(bench):
    bench.unet.to(memory_format=torch.channels_last)
    assert not bench.modules["conv_in"].weight.is_contiguous()
    snapshot = Snapshot(bench.unet)
    loras, (x, text) = [bench.lora()], bench.inputs()
    expected = dense(bench, x, text, loras, (0.5,))
    for execution in EXECUTIONS:
        with bench.mixer(loras, execution) as mixer:
            mixer.set_gates([[0.5]])
            assert_near(bench(x.to(memory_format=torch.channels_last), text), expected, 2e-5)
    snapshot.assert_restored()


def test_block_factors_scale_the_blocks_of_their_own_lora(bench, snapshot):
    loras, (x, text) = [bench.lora(seed=1), bench.lora(seed=2)], bench.inputs()
    blocks = [{"in": 1.0, "mid": 0.0, "out": 0.5}, {"in": 0.0}]
    gates = (0.6, 0.4)
    expected = dense(bench, x, text, loras, gates, blocks)
    for execution in EXECUTIONS:
        with bench.mixer(loras, execution, blocks=blocks) as mixer:
            mixer.set_gates([gates])
            assert_near(bench(x, text), expected, 2e-5)
    assert (expected - dense(bench, x, text, loras, gates)).abs().max() > 1e-2


def test_layers_that_all_block_factors_turn_off_are_not_touched(bench):
    mixer = bench.mixer([bench.lora()], blocks=[{"in": 0.0, "mid": 0.0, "out": 0.0}])
    assert {group_of(name) for name in mixer.layer_names} == {None}

@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_gradients_reach_the_input_alike_under_both_executions(layout):
    bench = Bench(layout)
    loras, (x, text) = [bench.lora(seed=1), bench.lora("attn", seed=2)], bench.inputs()
    gates, gradients = (0.5, 0.3), {}
    for execution in EXECUTIONS:
        x_own, text_own = x.clone().requires_grad_(), text.clone().requires_grad_()
        with bench.mixer(loras, execution) as mixer:
            mixer.set_gates([gates])
            loss = bench(x_own, text_own, grad=True).square().sum()
            gradients[execution] = torch.autograd.grad(loss, (x_own, text_own))
    wide = dense_unet(bench, loras, gates)
    x_own, text_own = x.double().requires_grad_(), text.double().requires_grad_()
    expected = torch.autograd.grad(run(wide, x_own, text_own, bench.added, grad=True).square().sum(), (x_own, text_own))
    for i in range(2):
        assert_near(gradients["merge"][i], expected[i], 1e-4)
        assert_near(gradients["branch"][i], expected[i], 1e-4)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_do_not_build_up_in_the_model(bench, snapshot, execution):
    bench.unet.requires_grad_(False)
    x, text = bench.inputs()
    with bench.mixer([bench.lora()], execution) as mixer:
        mixer.set_gates([[0.5]])
        bench(x.requires_grad_(), text, grad=True).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in bench.unet.parameters())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_merging_layers_together_and_one_by_one_give_the_same(bench, monkeypatch, together, channels_last):
    """The product of a whole stack is for GPUs; it is right on any device, in either format of memory."""
    monkeypatch.setattr(merged, "is_gpu", lambda device: together)
    if channels_last:
        bench.unet.to(memory_format=torch.channels_last)
    snapshot = Snapshot(bench.unet)
    loras, (x, text) = [bench.lora(seed=1), bench.lora(seed=2, rank=3)], bench.inputs()
    with bench.mixer(loras, "merge") as mixer:
        for gates in ((0.6, -0.3), (0.1, 0.5)):
            mixer.set_gates([gates])
            assert_near(bench(x, text), dense(bench, x, text, loras, gates), 2e-5)
        kernels = [slot for slot in mixer._slots.values() if slot.target.weight().dim() == 4]
        for weight in (weight for slot in kernels for weight in (slot.merged, slot.target.weight())):
            assert weight.is_contiguous(memory_format=torch.channels_last if channels_last else
                                        torch.contiguous_format), "in the model's own format"
        assert max(len(stack.layers) for stack in mixer._stacks) > 4
    snapshot.assert_restored()


def test_the_root_may_be_called_by_keyword(bench, snapshot):
    loras, (x, text) = [bench.lora()], bench.inputs()
    rows = [(0.5,), (0.0,)]
    with bench.mixer(loras, "branch") as mixer:
        mixer.set_gates(rows)
        by_position = bench(x, text)
        mixer.set_gates(rows)
        with torch.no_grad():
            by_keyword = bench.unet(sample=x, timestep=7, encoder_hidden_states=text).sample
    assert torch.equal(by_position, by_keyword)
