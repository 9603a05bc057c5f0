"""Every kind of delta, merged or branched, gives what dense weights give; ΔW is that of the model's own weight."""

from __future__ import annotations

import pytest
import torch
from lora_kinds import MATRICES, NEED_THE_WEIGHT, bias_delta, delta_of_kind, norm_delta
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from kinds_bench import LAYERS, VECTORS, assert_layer, file_of, lora_of_kind, output_of, vector_lora
from mixer_bench import (
    DEVICES,
    DTYPES,
    EXECUTIONS,
    Bench,
    assert_near,
    run,
    shared_bench,
    skip_where_torch_lacks,
    wide_copy,
    workload,
)

from sciart_ext.errors import SciArtError
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.fit import check_fit
from sciart_ext.mixer.mixer import Mixer


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


@pytest.mark.parametrize("channels", [8, 9], ids=["InstructPix2Pix", "inpainting"])
def test_deltas_for_four_channels_fit_models_of_more(channels):
    plain, bench = Bench(), Bench(in_channels=channels)
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
