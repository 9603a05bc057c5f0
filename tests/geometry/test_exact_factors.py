"""The geometry of LoRAs that are not thin factors, against dense deltas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_kinds import MATRICES, NEED_THE_WEIGHT, bias_delta, delta_of_kind, norm_delta

from sciart_ext.errors import SciArtError
from sciart_ext.geometry.comparison import compare
from sciart_ext.lora.exact_factors import exact_factors, factors_rank
from sciart_ext.lora.file import LoraFile

SHAPES = [(16, 24), (24, 16), (16, 12, 3, 3)]
LAYER = "unet_middle_block_1_proj_in"


def lora(name, layers):
    return LoraFile(name, Path(f"{name}.safetensors"), "any", "SD1", layers)


def dense(delta, shape):
    return delta.of(torch.empty(shape, dtype=torch.float64)).double().flatten(1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", sorted(MATRICES.keys() - NEED_THE_WEIGHT))
def test_the_factors_of_a_kind_make_its_delta(kind, shape):
    delta = delta_of_kind(kind, shape, 3)
    factors = exact_factors(delta)
    assert factors.rank == factors_rank(delta)
    found, expected = dense(factors, shape), dense(delta, shape)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", sorted(MATRICES.keys() - NEED_THE_WEIGHT))
def test_what_two_kinds_share_is_what_their_dense_deltas_share(kind, shape):
    deltas = [delta_of_kind(kind, shape, 1), delta_of_kind("thin factors", shape, 2)]
    shared, = compare([lora(str(i), {LAYER: delta}) for i, delta in enumerate(deltas)]).layers
    a, b = (dense(delta, shape) for delta in deltas)
    torch.testing.assert_close(shared.norms, torch.stack([a.norm(), b.norm()]), rtol=1e-5, atol=0)
    assert float(shared.cosines[0, 1]) == pytest.approx(float((a * b).sum() / a.norm() / b.norm()), abs=1e-5)
    values = torch.linalg.svdvals(a)
    found = shared.spectra[0]
    torch.testing.assert_close(found, values[:len(found)], rtol=1e-3, atol=1e-4 * float(values[0]))
    assert values[len(found):].sum() < 1e-3 * values[0]


@pytest.mark.parametrize("kind", sorted(NEED_THE_WEIGHT))
def test_what_depends_on_the_model_is_refused_by_its_kind(kind):
    delta = delta_of_kind(kind, (16, 24))
    with pytest.raises(SciArtError, match=rf"loras\[1\]: b is {delta.kind}: what it changes depends on the model"):
        compare([lora("a", {LAYER: delta_of_kind("lokr", (16, 24))}), lora("b", {LAYER: delta})])


def test_biases_and_norms_do_not_count():
    weight = {LAYER: delta_of_kind("full", (16, 24))}
    vectors = {LAYER + ".bias": bias_delta(16), "unet_middle_block_1_norm": norm_delta(16)}
    both = compare([lora("a", {**weight, **vectors}), lora("b", weight)])
    assert [layer.name for layer in both.layers] == [LAYER]
    assert float(both.whole().cosines[0, 1]) == pytest.approx(1.0)
    with pytest.raises(SciArtError, match=r"loras\[1\]: b is any: it changes no weights of layers"):
        compare([lora("a", weight), lora("b", vectors)])
