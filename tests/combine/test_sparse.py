"""Thinned combinations: each method against float64 written out entry by entry, and against PEFT's functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from written_out import elected_mean, summed, trimmed

from sciart_ext.combine import masks
from sciart_ext.combine.sparse import SparseCombination, dense
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.recipe.combining import Combination, CombiningSettings

NAMES = {0: "child", 1: "watercolor", 2: "science"}
WEIGHTS = [(0.65, 0.55, 0.5), (0.65, -0.55, 0.5), (-1.0, 0.2, 3.0)]
METHODS = ["ties", "dare-linear", "dare-ties", "magnitude-prune"]


def random_deltas(shape=(12, 20), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for k in NAMES}


def combination(method, layer="unet_out_2", names=NAMES, **settings):
    return SparseCombination(Combination(method, CombiningSettings(**settings)), layer, names)


def combine(method, deltas, weights, **settings):
    return combination(method, **settings)(deltas, dict(enumerate(weights)))


def expected(method, deltas, weights, density, majority="total", seed=0):
    """The same from the paper's formulas; what is dropped at random is told by the seeds."""
    arrays = [delta.double().numpy() for delta in deltas.values()]
    if method in ("ties", "magnitude-prune"):
        thin = [trimmed(array, density) for array in arrays]
    else:
        thin = [array * masks.at_random(array.shape, density, seed, "unet_out_2", NAMES[k]).numpy() / density
                for k, array in enumerate(arrays)]
    return elected_mean(thin, weights, majority) if "ties" in method else summed(thin, weights)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("majority", ["total", "frequency"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_what_its_paper_writes(method, majority, density, weights):
    deltas = random_deltas()
    actual = combine(method, deltas, weights, density=density, majority=majority, seed=3)
    wanted = expected(method, deltas, weights, density, majority, 3)
    np.testing.assert_allclose(actual.numpy(), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_near_float64(method):
    weights = WEIGHTS[0]
    deltas = random_deltas((48, 64), dtype=torch.float32)
    wanted = expected(method, deltas, weights, 0.5)
    error = np.abs(combine(method, deltas, weights).double().numpy() - wanted).max() / np.abs(wanted).max()
    assert error < 1e-6


@pytest.mark.parametrize("majority", ["total", "frequency"])
def test_pefts_functions_give_the_same(majority):
    merge = pytest.importorskip("peft.utils.merge_utils")
    deltas, weights = random_deltas((30, 41)), [0.65, 0.55, 0.5]
    tensors, as_tensor = list(deltas.values()), torch.tensor(weights, dtype=torch.float64)
    ours = combine("ties", deltas, weights, density=0.3, majority=majority)
    torch.testing.assert_close(ours, merge.ties(tensors, as_tensor, 0.3, majority))
    torch.testing.assert_close(combine("magnitude-prune", deltas, weights, density=0.3),
                               merge.magnitude_prune(tensors, as_tensor, 0.3))


@pytest.mark.parametrize("method", ["dare-linear", "dare-ties"])
def test_pefts_functions_give_the_same_where_it_drops_the_same(method, monkeypatch):
    pytest.importorskip("peft", minversion="0.14", reason="what it dropped was not made up for")
    merge = pytest.importorskip("peft.utils.merge_utils")
    deltas, weights = random_deltas((30, 41)), [0.65, 0.55, 0.5]
    drops = iter([masks.at_random((30, 41), 0.3, 5, "unet_out_2", name) for name in NAMES.values()])
    monkeypatch.setattr(merge.torch, "bernoulli", lambda tensor: next(drops).to(tensor))
    as_tensor = torch.tensor(weights, dtype=torch.float64)
    theirs = getattr(merge, method.replace("-", "_"))(list(deltas.values()), as_tensor, 0.3)
    torch.testing.assert_close(combine(method, deltas, weights, density=0.3, seed=5), theirs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_a_weight_of_zero_is_an_absent_lora(method, density):
    deltas = random_deltas()
    without = combination(method, density=density)({k: deltas[k] for k in (0, 2)}, {0: 0.6, 2: 0.4})
    assert torch.equal(combine(method, deltas, (0.6, 0.0, 0.4), density=density), without)


@pytest.mark.parametrize("method", METHODS)
def test_one_lora_alone_at_density_1_is_itself(method):
    deltas = random_deltas()
    torch.testing.assert_close(combine(method, deltas, (0.0, -0.7, 0.0), density=1.0), -0.7 * deltas[1])


def test_equal_loras_under_ties_are_their_mean():
    deltas = {k: random_deltas()[0] for k in NAMES}
    torch.testing.assert_close(combine("ties", deltas, (0.6, 0.3, 0.3), density=1.0), 0.4 * deltas[0])


def test_a_subtracted_lora_votes_for_what_it_does():
    """PEFT lets it vote for what it is, and then would subtract only what the others are too."""
    one = torch.tensor([[1.0, -1.0]])
    deltas = {0: one, 1: torch.tensor([[2.0, 2.0]])}
    actual = combination("ties", density=1.0)(deltas, {0: 1.0, 1: -1.0})
    assert actual.tolist() == [[-2.0, -1.5]]


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_loras_does_not_matter(method):
    deltas = random_deltas()
    one = combine(method, deltas, (0.6, -0.3, 0.4))
    names = {2 - k: name for k, name in NAMES.items()}
    other = combination(method, names=names)({2 - k: delta for k, delta in deltas.items()}, {2: 0.6, 1: -0.3, 0: 0.4})
    torch.testing.assert_close(one, other)


def test_random_entries_depend_on_seed_layer_and_lora_alone():
    drawn = masks.at_random((64, 64), 0.5, 1, "unet_a", "child")
    assert torch.equal(drawn, masks.at_random((64, 64), 0.5, 1, "unet_a", "child"))
    for other in ((2, "unet_a", "child"), (1, "unet_b", "child"), (1, "unet_a", "watercolor")):
        assert 0.4 < float((drawn == masks.at_random((64, 64), 0.5, *other)).float().mean()) < 0.6


def test_random_entries_are_as_many_as_the_density_says_and_leave_the_mean():
    kept = masks.at_random((400, 400), 0.3, 0, "unet_a", "child")
    assert float(kept.float().mean()) == pytest.approx(0.3, abs=0.005)
    deltas = {0: torch.ones(400, 400)}
    assert float(combine("dare-linear", deltas, (1.0,), density=0.3).mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8), (19, 27)])
def test_masks_come_back_from_their_bits(shape):
    two = torch.rand((2, *shape), generator=torch.Generator().manual_seed(1)) < 0.5
    packed = torch.stack([masks.pack(mask) for mask in two])
    assert packed[0].numel() == -(-two[0].numel() // 8)
    bits = masks.Bits(packed, masks.PLACES, shape)
    assert torch.equal(bits.whole(), two)
    for start in range(0, shape[0], 8):
        rows = slice(start, min(start + 8, shape[0]))
        assert torch.equal(bits.rows(rows), two[:, rows])


@pytest.mark.parametrize("method", METHODS)
def test_what_the_files_decide_is_found_once_and_held_in_one_bit_an_entry(method, monkeypatch):
    drawn = []
    for name in ("largest", "at_random"):
        original = getattr(masks, name)
        monkeypatch.setattr(masks, name, lambda *given, of=original: drawn.append(1) or of(*given))
    deltas, combining = random_deltas((16, 24)), combination(method, density=0.4)
    results = [combining(deltas, dict(enumerate(weights))) for weights in WEIGHTS]
    assert len(drawn) == 3 and combining.nbytes == 3 * 16 * 24 // 8
    for weights, result in zip(WEIGHTS, results):
        torch.testing.assert_close(result, combine(method, deltas, weights, density=0.4))


def test_at_least_one_entry_is_kept():
    assert int(masks.largest(torch.randn(2, 3), 0.01).sum()) == 1


def test_a_convolution_is_its_flattened_matrix():
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(3, 4, 3, 3, generator=generator), torch.randn(5, 3, 1, 1, generator=generator)
    wanted = torch.einsum("or,rikl->oikl", up[:, :, 0, 0].double(), down.double()).flatten(1) * 0.5
    torch.testing.assert_close(dense(LowRank(down.half(), up.half(), 0.5)).double(), wanted, rtol=1e-2, atol=1e-2)
    assert dense(LowRank(down.half(), up.half(), 0.5)).dtype == torch.float32
