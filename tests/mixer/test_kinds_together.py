"""All kinds of deltas on all parameters of a model at once: UNets and text encoders; memory, gradients, errors."""

from __future__ import annotations

import functools
import weakref

import pytest
import torch
from lora_files import TinyOpenClip, tiny_clip
from lora_kinds import MATRICES, bias_delta, delta_of_kind, norm_delta
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from kinds_bench import changed, dense, dense_unet, file_of, lora_of_kind, output_of
from mixer_bench import (
    EXECUTIONS,
    LAYOUTS_AND_DEVICES,
    WITH_PRETENDED,
    Bench,
    Interrupted,
    Snapshot,
    assert_near,
    run,
    shared_bench,
    wide_copy,
)

from sciart_ext.lora.kinds import BIAS
from sciart_ext.mixer.fit import check_fit
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import clip_layers, open_clip_layers
from sciart_ext.mixer.whole import Whole


def everything(bench, seed=0):
    """Two LoRAs that reach every parameter of the UNet with every kind."""
    loras = []
    for k in range(2):
        layers = {}
        for i, (name, target) in enumerate(bench.layers.items()):
            weight = target.weight()
            kind = list(MATRICES)[(i + 5 * k) % len(MATRICES)]
            layers[name] = norm_delta(len(weight), seed + i) if target.is_norm else \
                delta_of_kind(kind, weight.shape, seed + 1000 * k + i, size=0.1)
            layers[name + BIAS] = bias_delta(len(weight), seed + i + 7)
        loras.append(file_of(layers, f"lora{k}"))
    return loras


@functools.cache
def with_everything(layout, gates):
    """What dense weights give on the CPU: model, LoRAs and inputs are the same on every device."""
    bench = shared_bench(layout, torch.float32, "cpu")
    return output_of(bench, *bench.inputs(), everything(bench), gates)


@pytest.mark.parametrize(("layout", "device"), LAYOUTS_AND_DEVICES)
@pytest.mark.parametrize("execution", [*EXECUTIONS, "auto"])
def test_all_kinds_on_all_parameters_give_what_dense_weights_give(layout, execution, device):
    bench = Bench(layout, device=device)
    snapshot, loras, (x, text) = Snapshot(bench.unet), everything(bench), bench.inputs()
    assert check_fit(loras, bench.layers, "a model") == []
    plain = bench(x, text)
    with bench.mixer(loras, execution) as mixer:
        for gates in ((0.5, 0.0), (0.3, -0.2), (0.0, 0.0)):
            mixer.set_gates([gates])
            actual = bench(x, text)
            if any(gates):
                assert_near(actual, with_everything(layout, gates), 5e-5)
            else:
                assert torch.equal(actual, plain)
            snapshot.assert_unwritten()
    snapshot.assert_restored()
    assert torch.equal(bench(x, text), plain)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_an_exception_leaves_the_model_as_it_was(bench, snapshot, execution, monkeypatch):
    x, text = bench.inputs()
    plain, loras = bench(x, text), everything(bench)
    calls = []

    def fail(self, weight, original=Whole.of):
        calls.append(1)
        if len(calls) == 40:
            raise Interrupted
        return original(self, weight)

    monkeypatch.setattr(Whole, "of", fail)
    with bench.mixer(loras, execution) as mixer:
        mixer.set_gates([[0.5, 0.5]])
        with pytest.raises(Interrupted):
            bench(x, text)
        snapshot.assert_unwritten()
        assert_near(bench(x, text), output_of(bench, x, text, loras, (0.5, 0.5)), 5e-5)
    snapshot.assert_restored()
    assert torch.equal(bench(x, text), plain)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("grad", [False, True])
def test_no_dense_delta_outlives_its_layer(bench, snapshot, execution, grad, monkeypatch):
    """A dense ΔW of a whole SD 1.5 would take 3.4 GB; for a gradient it is computed again, not kept."""
    alive, most = weakref.WeakSet(), []

    def counted(self, weight, original=Whole.of):
        delta = original(self, weight)
        most.append(len(alive))
        alive.add(delta)
        return delta

    monkeypatch.setattr(Whole, "of", counted)
    loras = [lora_of_kind(bench, kind, list(bench.modules), i) for i, kind in enumerate(("dora by inputs", "glora"))]
    bench.unet.requires_grad_(False)
    x, text = bench.inputs()
    with bench.mixer(loras, execution) as mixer:
        mixer.set_gates([[0.5, 0.5]])
        output = bench(x.requires_grad_(grad), text, grad=grad)
        if grad:
            output.sum().backward()
        if execution == "branch":
            assert mixer.merged_bytes() == 0
    assert len(most) >= 362 and max(most) <= 2


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_are_those_of_dense_weights(bench, snapshot, execution):
    bench.unet.requires_grad_(False)
    loras, (x, text) = everything(bench), bench.inputs()
    own = x.clone().requires_grad_()
    with bench.mixer(loras, execution) as mixer:
        mixer.set_gates([[0.3, -0.2]])
        gradient, = torch.autograd.grad(bench(own, text, grad=True).square().sum(), own)
    wide, own = dense_unet(bench, loras, (0.3, -0.2)), x.double().requires_grad_()
    expected, = torch.autograd.grad(run(wide, own, text.double(), grad=True).square().sum(), own)
    assert_near(gradient, expected, 2e-4)


def test_gradients_reach_rows_that_differ(bench, snapshot):
    bench.unet.requires_grad_(False)
    loras, (x, text) = everything(bench), bench.inputs()
    rows, gradients = [(0.3, 0.0), (0.0, -0.2)], []
    own = x.clone().requires_grad_()
    with bench.mixer(loras, "branch") as mixer:
        mixer.set_gates(rows)
        together, = torch.autograd.grad(bench(own, text, grad=True).square().sum(), own)
    for i, gates in enumerate(rows):
        wide, own = dense_unet(bench, loras, gates), x[i:i + 1].double().requires_grad_()
        gradients += torch.autograd.grad(run(wide, own, text[i:i + 1].double(), grad=True).square().sum(), own)
    assert_near(together, torch.cat(gradients), 2e-4)


def text_lora(layers, prefix, seed):
    """Every kind over the layers of a text encoder, their norms and biases."""
    deltas = {}
    for i, (name, target) in enumerate(layers.items()):
        weight = target.weight()
        shape = weight.shape if target.rows is None else (target.rows.stop - target.rows.start, *weight.shape[1:])
        kind = list(MATRICES)[(i + seed) % len(MATRICES)]
        deltas[name] = norm_delta(len(weight), i) if target.is_norm else delta_of_kind(kind, shape, seed + i, size=0.2)
        deltas[name + BIAS] = bias_delta(shape[0], seed + i)
    return file_of(deltas)


@pytest.mark.parametrize("device", WITH_PRETENDED)
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("seed", [0, 4, 9])
def test_text_encoders_take_all_kinds(seed, execution, device):
    clip = tiny_clip().to(device)
    layers, tokens = clip_layers(clip, "te1"), torch.tensor([[48, 3, 4, 5, 49]], device=device)
    snapshot, lora, wide = Snapshot(clip), text_lora(layers, "te1", seed), wide_copy(clip).float()
    dense(layers, clip_layers(wide, "te1"), [lora], (0.6,))
    mixer = Mixer(clip, layers, [lora], execution=execution)
    with torch.no_grad(), mixer:
        mixer.set_gates([[0.6]])
        actual = clip(tokens).last_hidden_state
    snapshot.assert_restored()
    with torch.no_grad():
        assert_near(actual, wide.float()(tokens.cpu()).last_hidden_state, 5e-5)


@pytest.mark.parametrize("device", WITH_PRETENDED)
@pytest.mark.parametrize("seed", range(0, 14, 2))
def test_packed_attention_takes_all_kinds(seed, device):
    """q, k and v are thirds of one parameter: what depends on the weight depends on its own third."""
    torch.manual_seed(0)
    model = TinyOpenClip().to(device).eval()
    with torch.no_grad():
        for block in model.transformer.resblocks:
            block.attn.in_proj_bias.normal_()
    layers, x = open_clip_layers(model, "te1"), torch.randn(2, 5, 12, device=device)
    snapshot, lora, wide = Snapshot(model), text_lora(layers, "te1", seed), wide_copy(model)
    for name, target in layers.items():
        for ending, own, other in (("", target, open_clip_layers(wide, "te1")[name]),
                                   (BIAS, target.bias(), open_clip_layers(wide, "te1")[name].bias())):
            rows = target.rows or slice(None)
            with torch.no_grad():
                other.weight()[rows] = changed(own.weight()[rows], name + ending, [lora], (0.4,))
    with torch.no_grad(), Mixer(model, layers, [lora]) as mixer:
        mixer.set_gates([[0.4]])
        assert_near(model(x), wide(x.double().cpu()), 2e-5)
    snapshot.assert_restored()


def test_packed_weights_in_eight_bits_are_merged_and_rounded_once():
    """A text encoder of the host with FP8 weights: its attention cannot branch."""
    torch.manual_seed(0)
    model = TinyOpenClip().eval()
    out_proj = model.transformer.resblocks[0].attn.out_proj
    out_proj.weight = nn.Parameter(out_proj.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    layers = open_clip_layers(model, "te1")
    name = "te1_text_model_encoder_layers_0_self_attn_out_proj"
    delta, seen = delta_of_kind("thin factors", (12, 12)), []
    with Mixer(model, layers, [file_of({name: delta})]) as mixer, torch.no_grad():
        mixer.set_gates([[0.5]])
        attention = model.transformer.resblocks[0].attn
        attention.register_forward_pre_hook(lambda module, args: seen.append(module.out_proj.weight.clone()))
        with pytest.raises(RuntimeError):  # a CPU does not multiply such numbers
            model(torch.randn(2, 5, 12))
    expected = (out_proj.weight.float() + 0.5 * delta.of(torch.empty(12, 12))).to(torch.float8_e4m3fn)
    assert torch.equal(seen[0].float(), expected.float())
