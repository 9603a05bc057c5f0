"""Every kind of delta, merged or branched, gives what dense weights give; ΔW is that of the model's own weight."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from lora_files import TinyOpenClip, tiny_clip
from lora_kinds import MATRICES, NEED_THE_WEIGHT, bias_delta, delta_of_kind, norm_delta
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import (
    DEVICES,
    DTYPES,
    EXECUTIONS,
    Bench,
    Interrupted,
    Snapshot,
    assert_near,
    run,
    shared_bench,
    skip_where_torch_lacks,
    wide_copy,
    workload,
)

from sciart_ext.errors import SciArtError
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.kinds import BIAS
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.fit import check_fit
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers, open_clip_layers
from sciart_ext.mixer.whole import Whole

LAYERS = {
    "linear": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "feed-forward": "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "3 × 3": "down_blocks.1.resnets.0.conv1",
    "1 × 1": "down_blocks.0.attentions.1.proj_in",
    "strided": "down_blocks.0.downsamplers.0.conv",
    "circular": "up_blocks.1.upsamplers.0.conv",
}
VECTORS = {
    "bias of a linear layer": "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    "bias of a convolution": "down_blocks.1.resnets.0.conv1",
    "bias where there is none": "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "bias of a group norm": "up_blocks.1.resnets.0.norm1",
    "bias of a layer norm": "mid_block.attentions.0.transformer_blocks.0.norm2",
    "weight of a group norm": "down_blocks.0.resnets.1.norm2",
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
    seen = []
    with bench.mixer(loras, execution) as mixer:
        mixer.set_gates(rows)
        module = bench.unet.get_submodule(name)
        with module.register_forward_hook(lambda module, args, y: seen.append((args[0], y.clone()))):
            bench(*bench.inputs())
    return seen[0]


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("layer", "dtype"), [(layer, dtype) for dtype in DTYPES for layer in LAYERS
                                              if dtype == torch.float32 or layer in ("linear", "3 × 3")], ids=str)
@pytest.mark.parametrize("kind", MATRICES)
def test_a_kind_gives_what_its_dense_weight_gives(kind, layer, dtype, device, monkeypatch):
    skip_where_torch_lacks(dtype, device)
    bench, name = shared_bench("sd1", dtype, device), LAYERS[layer]
    if layer == "circular":
        monkeypatch.setattr(bench.modules[name], "padding_mode", "circular")
    loras = [lora_of_kind(bench, kind, [name], 1, torch.float16), lora_of_kind(bench, kind, [name], 2)]
    assert_layer(bench, name, loras, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layer", ["linear", "strided"])
@pytest.mark.parametrize("kind", MATRICES)
def test_rows_take_each_kind_by_their_own_gates(kind, layer, device):
    bench, name = shared_bench("sd1", torch.float32, device), LAYERS[layer]
    loras = [lora_of_kind(bench, kind, [name], 1), lora_of_kind(bench, "thin factors", [name], 2)]
    assert_layer(bench, name, loras, torch.float32, ((0.7, 0.0), (-0.3, 0.5)))
    assert_layer(bench, name, loras[::-1], torch.float32, ((0.0, 0.0), (0.4, 0.8)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("of", VECTORS)
def test_biases_and_norms_are_changed_too(of, dtype, device):
    skip_where_torch_lacks(dtype, device)
    bench, name = shared_bench("sd1", dtype, device), VECTORS[of]
    loras = [vector_lora(bench.unet, name, of, 1, torch.float16), vector_lora(bench.unet, name, of, 2)]
    assert check_fit(loras, bench.layers, "a model") == []
    assert_layer(bench, name, loras, dtype)
    assert_layer(bench, name, loras, dtype, ((0.7, 0.0), (-0.3, 0.5)))


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", sorted(NEED_THE_WEIGHT))
def test_the_order_of_loras_does_not_matter(bench, snapshot, kind, execution):
    """ΔW is that of the model's own weight, not of one that another LoRA has changed."""
    names = [LAYERS["linear"], LAYERS["3 × 3"]]
    loras = [lora_of_kind(bench, kind, names, 1), lora_of_kind(bench, "thin factors", names, 2),
             lora_of_kind(bench, "dora by outputs", names, 3)]
    gates, (x, text) = (0.8, 0.5, -0.4), bench.inputs()
    expected = output_of(bench, x, text, loras, gates)
    for order in ((0, 1, 2), (2, 0, 1), (2, 1, 0)):
        with bench.mixer([loras[k] for k in order], execution) as mixer:
            mixer.set_gates([[gates[k] for k in order]])
            assert_near(bench(x, text), expected, 2e-5)


@pytest.mark.parametrize("kind", MATRICES)
def test_a_gate_multiplies_the_delta(bench, snapshot, kind):
    name = LAYERS["3 × 3"]
    lora, weight = lora_of_kind(bench, kind, [name]), bench.modules[name].weight.detach()
    mixer, found = bench.mixer([lora], "merge"), []
    with mixer:
        for gate in (1.0, 0.25, -2.0):
            mixer.set_gates([[gate]])
            bench(*bench.inputs())
            slot, = (slot for slot in mixer._slots.values() if slot.target.module is bench.modules[name])
            found.append((slot.merged.detach() - weight) / gate)
    assert found[0].abs().max() > 0.01
    for other in found[1:]:
        assert_near(other, found[0], 1e-5)


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
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
                assert_near(actual, output_of(bench, x, text, loras, gates), 5e-5)
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
    assert len(most) > 500 and max(most) <= 2


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


def test_auto_merges_what_has_no_thin_factors_unless_rows_differ(bench, snapshot):
    lora = lora_of_kind(bench, "full", list(bench.modules))
    few_calls = workload(calls=20, changes=20)
    assert bench.mixer([lora], "auto", few_calls).merged_names == set(lora.layers)
    thin = bench.mixer([lora_of_kind(bench, "thin factors", list(bench.modules))], "auto", few_calls)
    assert thin.merged_names < set(lora.layers)
    assert bench.mixer([lora], "auto", workload(rows_differ=True)).merged_names == set()


def test_a_bias_that_is_not_there_branches_and_holds_nothing(bench, snapshot):
    lora = vector_lora(bench.unet, VECTORS["bias where there is none"], "bias")
    mixer = bench.mixer([lora], "merge")
    assert mixer.merged_names == set() and mixer.touched_bytes() == 0


def test_deltas_for_four_channels_fit_an_inpainting_model_of_nine():
    plain, bench = Bench(), Bench(in_channels=9)
    x, text = bench.inputs()
    shape, weight = plain.modules["conv_in"].weight.shape, bench.modules["conv_in"].weight.detach().double()
    for kind in ("full", "dora by outputs", "ia3 by inputs", "loha"):
        delta = delta_of_kind(kind, shape, 3)
        lora = file_of({"unet_input_blocks_0_0": delta})
        assert check_fit([lora], bench.layers, "a model") == []
        padded = torch.zeros_like(weight)
        padded[:, :4] = delta.of(weight[:, :4])
        wide = wide_copy(bench.unet)
        wide.conv_in.weight = nn.Parameter(weight + 0.5 * padded)
        expected = run(wide, x.double(), text.double())
        for execution in EXECUTIONS:
            with bench.mixer([lora], execution) as mixer:
                mixer.set_gates([[0.5]])
                assert_near(bench(x, text), expected, 2e-5)


@pytest.mark.parametrize("kind", MATRICES)
def test_a_kind_for_another_shape_is_refused_with_both_shapes(bench, kind):
    layer = "unet_middle_block_1_transformer_blocks_0_attn2_to_k"  # (16, 12)
    lora = file_of({layer: delta_of_kind(kind, (24, 20))})
    with pytest.raises(SciArtError, match=r"a\.safetensors: .*attn2_to_k has shape .*24.*\(16, 12\)|has shape \(20,"):
        check_fit([lora], bench.layers, "toy")
    with pytest.raises(ValueError, match="does not fit"):
        Mixer(bench.unet, bench.layers, [lora])


@pytest.mark.parametrize(("name", "delta"), [
    ("unet_middle_block_0_in_layers_0", bias_delta(4)), ("unet_middle_block_0_in_layers_0.bias", bias_delta(4)),
    ("unet_middle_block_0_in_layers_2", norm_delta(16)), ("unet_middle_block_0_in_layers_0",
                                                          delta_of_kind("thin factors", (16, 16))),
])
def test_vectors_for_another_size_are_refused(bench, name, delta):
    with pytest.raises(SciArtError, match="has shape"):
        check_fit([file_of({name: delta})], bench.layers, "toy")


def test_biases_of_layers_that_the_model_lacks_are_noted(bench):
    layers = {"unet_label_emb_0_0.bias": bias_delta(4), "unet_middle_block_0_in_layers_0.bias": bias_delta(16)}
    assert check_fit([file_of(layers)], bench.layers, "toy") == [
        "a: 1 of 2 layers are not in toy and were left out (first: unet_label_emb_0_0.bias)"]


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


@pytest.mark.parametrize("device", DEVICES)
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


@pytest.mark.parametrize("device", DEVICES)
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


@pytest.mark.parametrize("kind", MATRICES)
def test_autocasting_does_not_round_the_products_of_a_merge(bench, snapshot, kind):
    """As the host does it on GPUs; ΔW is rounded once, with W'."""
    name = LAYERS["3 × 3"]
    loras, found = [lora_of_kind(bench, kind, [name], 1), lora_of_kind(bench, "full", [name], 2)], []
    for enabled in (False, True):
        mixer = bench.mixer(loras, "merge")
        with mixer, torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            mixer.set_gates([[0.6, 0.2]])
            bench(*bench.inputs())
            found += [slot.merged.clone() for slot in mixer._slots.values()]
    assert torch.equal(*found)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", sorted(NEED_THE_WEIGHT))
def test_what_the_host_has_added_is_not_what_a_delta_starts_from(bench, kind, execution):
    """Its `<lora:…>` beside a recipe: ΔW is that of the untouched weight, added to the weight that the host has now."""
    name = LAYERS["3 × 3"]
    module, canonical = bench.modules[name], layer_name(f"unet.{name}")
    untouched, lora = module.weight.detach().clone(), lora_of_kind(bench, kind, [name])
    with torch.no_grad():
        module.weight.add_(0.3 * torch.randn_like(untouched))
    (x, text), wide = bench.inputs(), wide_copy(bench.unet)
    total = module.weight.detach().double() + 0.7 * lora.layers[canonical].of(untouched.double())
    wide.get_submodule(name).weight = nn.Parameter(total)
    with bench.mixer([lora], execution, untouched=lambda target: untouched) as mixer:
        mixer.set_gates([[0.7]])
        assert_near(bench(x, text), run(wide, x.double(), text.double()), 2e-5)


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
