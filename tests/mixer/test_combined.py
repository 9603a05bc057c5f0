"""Layers whose LoRAs are combined: merge and branch give the float64 weights, row by row, and leave nothing behind."""

from __future__ import annotations

import functools
import weakref
from types import SimpleNamespace

import pytest
import torch
from lora_files import TinyOpenClip, tiny_clip
from mixer_bench import (
    DEVICES,
    Bench,
    Snapshot,
    assert_near,
    run,
    shared_bench,
    skip_where_torch_lacks,
    wide_copy,
    workload,
)
from torch import nn

from sciart_ext.combine import masks, orthogonal
from sciart_ext.combine.orthogonal import Product, order_of
from sciart_ext.combine.sparse import SparseCombination
from sciart_ext.lora.blocks import group_of
from sciart_ext.mixer import orthogonal_layer
from sciart_ext.mixer.gates import Gates
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.mixture import Part, bind
from sciart_ext.mixer.sparse_layer import SparseLayer
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers, open_clip_layers
from sciart_ext.recipe import LoraEntry
from sciart_ext.recipe.combining import Combination, CombiningSettings

SETTINGS = CombiningSettings(density=0.4, seed=3, directions=2, strength=0.7)
METHODS = ["orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune"]
KINDS = ["orthogonal", "ties", "dare-linear"]
GATES = (0.65, -0.4, 0.5)
ROWS = [(0.65, -0.4, 0.5), (0.0, 0.0, 0.0), (0.65, 0.0, 0.5), (0.2, -0.4, 0.5)]


def three_loras(bench):
    """Of different ranks, on different layers of every kind; enough of them, as float64 takes its time."""
    return [bench.lora(("attn2.to_q", "conv1", "proj_out"), seed=1, rank=2, alpha=1.0),
            bench.lora(("attn2.to_q", "conv1", "downsamplers", "ff.net.2", "time_emb_proj"), seed=2, rank=5),
            bench.lora(("attn2.to", "conv_shortcut", "proj_out"), seed=3)]


def combination(method):
    return Combination(method, SETTINGS)


def delta_of(method, name, loras, gates, blocks=None):
    """C of one layer in float64, each ΔW formed; None where no LoRA reaches it."""
    found = {k: lora.layers[name] for k, lora in enumerate(loras) if name in lora.layers}
    if not found:
        return None
    weights = {k: gates[k] * (blocks[k].get(group_of(name), 1.0) if blocks else 1.0) for k in found}
    products = {k: Product(d.up.flatten(1).double() * d.scale, d.down.flatten(1).double()) for k, d in found.items()}
    if not any(weights.values()):
        return torch.zeros_like(products[next(iter(products))].up @ products[next(iter(products))].down)
    if method == "orthogonal":
        left = orthogonal.orthogonal(products, order_of(weights), SETTINGS.directions, SETTINGS.strength)
        return sum(weights[k] * up @ down for k, (up, down) in left.items())
    combining = SparseCombination(combination(method), name, {k: loras[k].path.stem for k in found})
    return combining({k: up @ down for k, (up, down) in products.items()}, weights)


def dense(bench, x, text, loras, gates, method, blocks=None):
    """The UNet in float64 with the combination added to its weights."""
    unet = wide_copy(bench.unet)
    for name, target in diffusers_unet_layers(unet).items():
        delta = delta_of(method, name, loras, gates, blocks)
        if delta is not None:
            weight = bench.layers[name].weight().detach().double().cpu()
            target.module.weight = nn.Parameter(weight + delta.view(weight.shape))
    return run(unet, x.double().cpu(), text.double().cpu(), bench.added)


@functools.cache
def combined(layout, gates, method):
    """What dense weights give on the CPU: model, LoRAs and inputs are the same on every device."""
    bench = shared_bench(layout, torch.float32, "cpu")
    return dense(bench, *bench.inputs(), three_loras(bench), gates, method)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
@pytest.mark.parametrize("execution", ["merge", "branch"])
@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_combination_of_dense_deltas(method, execution, layout, device):
    bench = shared_bench(layout, torch.float32, device)
    snapshot, loras, (x, text) = Snapshot(bench.unet), three_loras(bench), bench.inputs()
    expected, plain = combined(layout, GATES, method), combined(layout, (0, 0, 0), method)
    with bench.mixer(loras, execution, combination=combination(method)) as mixer:
        mixer.set_gates([GATES])
        assert_near(bench(x, text), expected, 5e-5)
        snapshot.assert_unwritten()
    snapshot.assert_restored()
    assert (expected - plain).abs().max() > 0.01 * plain.abs().max()


@pytest.mark.parametrize("method", KINDS)
def test_rows_have_combinations_of_their_own(bench, snapshot, method):
    loras, (x, text) = three_loras(bench), bench.inputs(len(ROWS))
    expected = torch.cat([dense(bench, x[i:i + 1], text[i:i + 1], loras, gates, method)
                          for i, gates in enumerate(ROWS)])
    with bench.mixer(loras, "branch", combination=combination(method)) as mixer:
        for _ in range(2):
            mixer.set_gates(ROWS)
            assert_near(bench(x, text), expected, 5e-5)


@pytest.mark.parametrize("execution", ["merge", "branch"])
@pytest.mark.parametrize("method", KINDS)
def test_gates_may_change_and_zero_is_the_plain_model(bench, snapshot, method, execution):
    loras, (x, text) = three_loras(bench), bench.inputs()
    plain = bench(x, text)
    with bench.mixer(loras, execution, combination=combination(method)) as mixer:
        for gates in (GATES, (0.1, 0.5, -0.3), GATES):
            mixer.set_gates([gates])
            assert_near(bench(x, text), combined("sd1", gates, method), 5e-5)
        mixer.set_gates([(0.0, 0.0, 0.0)])
        assert torch.equal(bench(x, text), plain)


@pytest.mark.parametrize("method", KINDS)
def test_block_factors_are_part_of_the_weights(bench, snapshot, method):
    loras, (x, text) = three_loras(bench), bench.inputs()
    blocks = [{"in": 0.5, "out": -1.0}, {"mid": 0.0}, {}]
    expected = dense(bench, x, text, loras, GATES, method, blocks)
    for execution in ("merge", "branch"):
        with bench.mixer(loras, execution, blocks=blocks, combination=combination(method)) as mixer:
            mixer.set_gates([GATES])
            assert_near(bench(x, text), expected, 5e-5)


@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("rows", [[GATES] * 2, [GATES, (0.2, 0.0, 0.9)]])
def test_gradients_are_those_of_the_dense_model(bench, snapshot, method, rows):
    loras, (x, text) = three_loras(bench), bench.inputs()
    wanted = []
    for i, gates in enumerate(rows):
        unet = wide_copy(bench.unet)
        for name, target in diffusers_unet_layers(unet).items():
            weight = target.module.weight.detach()
            delta = delta_of(method, name, loras, gates)
            target.module.weight = nn.Parameter(weight if delta is None else weight + delta.view(weight.shape))
        own = x[i:i + 1].double().requires_grad_()
        wanted.append(torch.autograd.grad(run(unet, own, text[i:i + 1].double(), grad=True).square().sum(), own)[0])
    with bench.mixer(loras, "branch", combination=combination(method)) as mixer:
        mixer.set_gates(rows)
        own = x.clone().requires_grad_()
        found = torch.autograd.grad(bench(own, text, grad=True).square().sum(), own)[0]
    assert_near(found, torch.cat(wanted), 1e-4)


def test_a_gradient_does_not_hold_the_deltas_of_all_layers(bench, monkeypatch):
    """They are made again on the way back."""
    made, original = [], SparseLayer.delta

    def delta(layer, *given):
        result = original(layer, *given)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(SparseLayer, "delta", delta)
    loras, (x, text) = [bench.lora("ff.net", seed=1)], bench.inputs(1)
    with bench.mixer(loras, "branch", combination=combination("ties"), memory_limit=0) as mixer:
        mixer.set_gates([[0.5]])
        result = bench(x.requires_grad_(), text, grad=True)
        count = len(made)
        assert count == len(loras[0].layers) and not any(one() is not None for one in made)
        result.sum().backward()
        assert len(made) == 2 * count and x.grad.abs().sum() > 0


def test_a_hosts_autocast_does_not_round_the_combination(bench):
    layer = bench.mixer(three_loras(bench), combination=combination("ties"))._layers[0]
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            original = layer.target.weight().detach()
            results.append(torch.empty_like(original))
            layer.write_merged(original, results[-1], Gates([GATES]))
    assert torch.equal(*results)


@pytest.mark.parametrize("limit", [None, 20_000, 0])
def test_combinations_of_rows_are_kept_while_they_are_used_as_far_as_there_is_room(bench, snapshot, monkeypatch, limit):
    made, original = [], SparseCombination.blocks
    monkeypatch.setattr(SparseCombination, "blocks", lambda *given: made.append(1) or original(*given))
    loras, (x, text) = three_loras(bench), bench.inputs(len(ROWS))
    with bench.mixer(loras, "branch", combination=combination("ties"), memory_limit=limit) as mixer:
        counts, outputs = [], []
        for rows in (ROWS, ROWS[::-1], ROWS, [GATES] * len(ROWS)):
            mixer.set_gates(rows)
            outputs.append(bench(x, text))
            counts.append(len(made))
            made.clear()
        room, held = mixer._layers[0]._room, sum(layer._joined.nbytes for layer in mixer._layers)
        assert held == room.used <= (limit if limit is not None else 2**30)
        mixer.release()
    assert torch.equal(outputs[0], outputs[2]) and not any(layer._joined.nbytes for layer in mixer._layers)
    assert room.used == 0 and counts[0] > 0
    if limit is None:
        assert counts[1:3] == [0, 0] and 0 <= counts[3] < counts[0] and held > 20_000
    else:
        assert 0 < counts[2] <= counts[0] and (counts[2] < counts[0]) == (limit > 0)


@pytest.mark.parametrize("method", METHODS)
def test_what_the_files_decide_is_not_found_again_when_gates_change(bench, method, monkeypatch):
    found = []
    for module, name in ((masks, "largest"), (masks, "at_random"), (orthogonal_layer, "orthogonal")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, of=original: found.append(1) or of(*given))
    loras, (x, text) = three_loras(bench), bench.inputs()
    with bench.mixer(loras, "merge", combination=combination(method)) as mixer:
        counts = []
        for strength in (1.0, 0.8, 0.6):
            mixer.set_gates([tuple(strength * gate for gate in GATES)])
            bench(x, text)
            counts.append(len(found))
    assert counts[0] > 0 and counts[1:] == [counts[0]] * 2


def test_orders_that_are_kept_are_few(bench):
    loras = [bench.lora("attn1.to_q", seed=seed) for seed in range(1, 5)]
    mixer = bench.mixer(loras, "merge", combination=combination("orthogonal"))
    layer = mixer._layers[0]
    here = torch.device("cpu"), torch.float32
    for i in range(20):
        layer.in_order(tuple(sorted(range(4), key=lambda k: (k * 7 + i * 3) % 5 + k / 10 * (i % 3))), *here)
    for a in range(4):
        for b in range(4):
            for c in range(4):
                if len({a, b, c}) == 3:
                    layer.in_order((a, b, c), *here)
    assert len(layer._by_order) == orthogonal_layer.ORDERS_KEPT


def test_sparse_layers_are_merged_wherever_memory_allows(bench):
    loras = three_loras(bench)
    mixer = Mixer(bench.unet, bench.layers, loras, combination=combination("ties"))
    mixer.choose(workload())
    assert mixer.merged_names == set(mixer.layer_names)
    limited = Mixer(bench.unet, bench.layers, loras, memory_limit=20000, combination=combination("ties"))
    limited.choose(workload())
    assert 0 < len(limited.merged_names) < len(limited.layer_names)
    x, text = bench.inputs()
    with limited:
        limited.set_gates([GATES])
        assert_near(bench(x, text), combined("sd1", GATES, "ties"), 5e-5)
        assert limited.merged_bytes() <= 20000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_near(dtype):
    skip_where_torch_lacks(dtype, "cpu")
    bench = Bench(dtype=dtype)
    loras, (x, text) = three_loras(bench), bench.inputs()
    for method in ("orthogonal", "dare-ties"):
        expected = dense(bench, x, text, loras, GATES, method)
        with bench.mixer(loras, "merge", combination=combination(method)) as mixer:
            mixer.set_gates([GATES])
            assert_near(bench(x, text), expected, 5e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["clip", "open_clip"])
def test_text_encoders_too(bench, method, kind):
    from test_text_encoders import text_lora

    model, x = (tiny_clip(), torch.tensor([[48, 3, 4, 49]])) if kind == "clip" else (
        TinyOpenClip().eval(), torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0)))
    layers = (clip_layers if kind == "clip" else open_clip_layers)(model, "te1")
    loras, gates = [text_lora(seed=1), text_lora(seed=2, rank=2)], (0.7, -0.4)
    entries = [LoraEntry(name="a", weight=1), LoraEntry(name="b", weight=1)]
    mixture = bind({"unet": Part(bench.unet, bench.layers), "te1": Part(model, layers)}, loras, entries, "toy",
                   combination=combination(method))
    snapshot, wide = Snapshot(model), wide_copy(model)
    with torch.no_grad():
        for name, target in (clip_layers if kind == "clip" else open_clip_layers)(wide, "te1").items():
            weight = target.weight() if target.rows is None else target.weight()[target.rows]
            delta = delta_of(method, name, loras, gates)
            weight += 0 if delta is None else delta.view(weight.shape)
        expected = outputs(wide, x)
        with mixture.encoding(gates):
            assert_near(outputs(model, x), expected, 5e-5)
    snapshot.assert_restored()


def outputs(model, x):
    if x.is_floating_point():
        return model(x.to(next(model.parameters()).dtype))
    before = torch.get_default_dtype()
    torch.set_default_dtype(next(model.parameters()).dtype)  # older transformers' mask needs it
    try:
        return model(x).last_hidden_state
    finally:
        torch.set_default_dtype(before)


def test_a_mixture_of_entries_without_combination_is_linear(bench):
    entry = SimpleNamespace(blocks={})
    mixture = bind({"unet": Part(bench.unet, bench.layers)}, [bench.lora()], [entry], "toy")
    assert {type(layer).__name__ for layer in mixture.unet._layers} == {"Layer"}
