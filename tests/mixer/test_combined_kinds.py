"""LoRAs of several kinds combined in one layer: merge and branch give the float64 weights, or a refusal."""

from __future__ import annotations

import pytest
import torch
from lora_kinds import bias_delta, delta_of_kind, norm_delta

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import assert_near, run, shared_bench, wide_copy
from test_kinds import LAYERS, file_of
from torch import nn

from sciart_ext.combine.sparse import SparseCombination
from sciart_ext.errors import SciArtError
from sciart_ext.lora.kinds import BIAS
from sciart_ext.lora.names import layer_name
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers
from sciart_ext.recipe.combining import Combination, CombiningSettings

SETTINGS = CombiningSettings(density=0.5, seed=3)
SPARSE = ["ties", "dare-linear", "dare-ties", "magnitude-prune"]
MIXED = ["thin factors", "loha", "dora by outputs"]
BIASED, NORM, UNBIASED = (f"mid_block.attentions.0.transformer_blocks.0.{name}" for name in
                          ("ff.net.2", "norm2", "attn1.to_q"))
ROWS = [(0.65, -0.4, 0.5), (0.0, 0.0, 0.0), (0.65, 0.0, 0.5)]


@pytest.fixture(scope="module")
def bench():
    return shared_bench("sd1", torch.float32, "cpu")


@pytest.fixture(scope="module")
def loras(bench):
    """Each of a kind of its own, on layers of all kinds; two of them with a norm and biases too."""
    found = []
    for k, kind in enumerate(MIXED):
        layers = {layer_name(f"unet.{name}"): delta_of_kind(kind, bench.modules[name].weight.shape, seed=7 * k + i)
                  for i, name in enumerate(LAYERS.values())}
        if k:
            size = {name: len(bench.unet.get_submodule(name).weight) for name in (BIASED, NORM, UNBIASED)}
            layers[layer_name(f"unet.{NORM}")] = norm_delta(size[NORM], k)
            for name in (BIASED, UNBIASED):
                layers[layer_name(f"unet.{name}") + BIAS] = bias_delta(size[name], k)
        found.append(file_of(layers, name=kind.replace(" ", "-")))
    return found


def dense(bench, x, text, loras, gates, method):
    """The UNet in float64 with the combination of every weight and bias added to it."""
    unet = wide_copy(bench.unet)
    for name, target in diffusers_unet_layers(unet).items():
        for ending, own in (("", target), (BIAS, target.bias())):
            acting = {k: lora for k, lora in enumerate(loras) if name + ending in lora.layers and gates[k]}
            if acting:
                weight = own.weight()
                value = torch.zeros(len(target.weight()), dtype=torch.float64) if weight is None else weight.detach()
                deltas = {k: lora.layers[name + ending].of(value).reshape(len(value), -1) for k, lora in acting.items()}
                combining = SparseCombination(Combination(method, SETTINGS), name + ending,
                                              {k: lora.path.stem for k, lora in acting.items()})
                total = value + combining(deltas, {k: gates[k] for k in acting}).reshape(value.shape)
                own.module._parameters[own.parameter] = nn.Parameter(total, requires_grad=False)
    return run(unet, x.double(), text.double(), bench.added)


@pytest.mark.parametrize("execution", ["merge", "branch", "auto"])
@pytest.mark.parametrize("method", SPARSE)
def test_it_is_the_combination_of_dense_deltas(bench, loras, method, execution):
    x, text = bench.inputs()
    with bench.mixer(loras, execution, combination=Combination(method, SETTINGS)) as mixer:
        mixer.set_gates([ROWS[0]])
        found = bench(x, text)
    assert_near(found, dense(bench, x, text, loras, ROWS[0], method), 5e-5)
    assert not torch.allclose(found, bench(x, text), atol=1e-2)


@pytest.mark.parametrize("method", SPARSE)
def test_rows_have_combinations_of_their_own(bench, loras, method):
    x, text = bench.inputs(len(ROWS))
    expected = torch.cat([dense(bench, x[i:i + 1], text[i:i + 1], loras, gates, method)
                          for i, gates in enumerate(ROWS)])
    with bench.mixer(loras, "branch", combination=Combination(method, SETTINGS)) as mixer:
        mixer.set_gates(ROWS)
        assert_near(bench(x, text), expected, 5e-5)


def test_orthogonal_is_refused_where_there_are_no_thin_factors_and_adds_vectors_up(bench, loras):
    orthogonal = Combination("orthogonal", SETTINGS)
    with pytest.raises(SciArtError, match="combine: loha is LoHa, whose changes have no thin factors; accepted"):
        Mixer(bench.unet, bench.layers, loras, combination=orthogonal)
    vectors = [file_of({name: delta for name, delta in lora.layers.items() if len(delta.shape) == 1})
               for lora in loras[1:]]
    x, text = bench.inputs()
    outputs = []
    for combination in (orthogonal, None):
        with bench.mixer(vectors, "branch", combination=combination) as mixer:
            mixer.set_gates([(0.5, 0.7)])
            outputs.append(bench(x, text))
    assert torch.equal(*outputs) and not torch.equal(outputs[0], bench(x, text))
