"""Each figure of the geometry is that of a dense SVD in float64."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.geometry.grams import layer_grams, together
from sciart_ext.geometry.layer import (
    cosines,
    inner_products,
    overlaps,
    principal_angles,
    rank_of_sum,
    share_by_chance,
    share_within,
    shared_directions,
    subspaces,
    superposition,
)
from sciart_ext.lora.low_rank import LowRank

WEIGHTS = (0.65, 0.55, -0.5)


def low_rank(rank, seed, out=40, inputs=28, kernel=None, scale=0.25, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (rank, inputs, *(kernel or ()))
    down = torch.randn(shape, generator=generator).to(dtype)
    up = torch.randn(out, rank, *[1] * len(kernel or ()), generator=generator).to(dtype)
    return LowRank(down, up, scale)


def deficient(rank, seed):
    """Of half the rank that its factors have: rows repeated, one of them zero."""
    delta = low_rank(rank, seed)
    delta.up[:, rank // 2:] = delta.up[:, :rank - rank // 2]
    delta.down[rank // 2 - 1] = 0
    delta.down[-1] = 0
    return delta


def sharing(first, seed):
    """A delta with two of its directions from another."""
    delta = low_rank(6, seed)
    delta.up[:, :2] = first.up[:, :2]
    delta.down[:2] = first.down[:2]
    return delta


FIRST = low_rank(5, 1)
CASES = {
    "mixed ranks": [FIRST, low_rank(3, 2), low_rank(8, 3)],
    "shared directions": [FIRST, sharing(FIRST, 2), low_rank(4, 3, scale=2.0)],
    "the same twice": [FIRST, FIRST, low_rank(2, 3)],
    "deficient": [deficient(8, 1), low_rank(4, 2), deficient(6, 3)],
    "convolutions": [low_rank(4, 1, 20, 6, (3, 3)), low_rank(6, 2, 20, 6, (3, 3)), low_rank(1, 3, 20, 6, (3, 3))],
    "half precision": [low_rank(5, seed, dtype=torch.float16) for seed in (1, 2, 3)],
    "very different sizes": [low_rank(4, 1, scale=1e-5), low_rank(4, 2, scale=1e3), low_rank(4, 3, scale=-1.0)],
}


@pytest.fixture(params=CASES, ids=CASES.keys())
def deltas(request):
    return CASES[request.param]


def dense(delta):
    return delta.scale * delta.up.flatten(1).double() @ delta.down.flatten(1).double()


def dense_svd(delta):
    u, s, v = torch.linalg.svd(dense(delta), full_matrices=False)
    kept = s > 1e-6 * s[0]
    return u[:, kept], s[kept], v[kept].T


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found, dtype=torch.float64),
                               torch.as_tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_inner_products_norms_and_cosines(deltas):
    flat = torch.stack([dense(delta).flatten() for delta in deltas])
    inner = inner_products(layer_grams(deltas))[0]
    torch.testing.assert_close(inner, flat @ flat.T, rtol=1e-9, atol=1e-12)
    units = flat / flat.norm(dim=1, keepdim=True)
    close(cosines(inner), units @ units.T)


def test_singular_values_and_subspaces(deltas):
    for delta, found in zip(deltas, subspaces(layer_grams(deltas))):
        u, s, v = dense_svd(delta)
        rank, values = int(found.ranks), found.values[0]
        assert rank == len(s) and (values[rank:] == 0).all()
        close(values[:rank] / s[0], s / s[0])
        left = delta.up.flatten(1).double() @ found.left[0]
        right = (delta.scale * delta.down.flatten(1).double()).T @ found.right[0]
        close(left @ left.T, u @ u.T)  # the same subspaces, whatever the signs
        close(right @ right.T, v @ v.T)
        close(left @ (values / s[0]).diag() @ right.T, dense(delta) / s[0])


def test_overlaps_and_principal_angles(deltas):
    gram = layer_grams(deltas)
    found = subspaces(gram)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        (u, *_), (w, *_) = dense_svd(deltas[a]), dense_svd(deltas[b])
        shared = shared_directions(gram, found, a, b)
        for k in (1, 2, 4, 100):
            k_there = min(k, u.shape[1], w.shape[1])
            close(overlaps(shared, [k])[0][0], (u[:, :k_there].T @ w[:, :k_there]).square().sum() / k_there)
        cosine = torch.linalg.svdvals(u.T @ w).clamp(max=1)
        close(principal_angles(shared)[0].deg2rad().cos(), cosine)


def test_superposition_and_rank_of_the_sum(deltas):
    gram = layer_grams(deltas)
    dense_sum = sum(weight * dense(delta) for weight, delta in zip(WEIGHTS, deltas))
    total = sum((weight * dense(delta)).square().sum() for weight, delta in zip(WEIGHTS, deltas))
    close(superposition(inner_products(gram)[0], WEIGHTS), dense_sum.square().sum() / total)
    values = torch.linalg.svdvals(dense_sum)
    assert int(rank_of_sum(gram, WEIGHTS)) == int((values > 1e-6 * values[0]).sum())


def test_what_projecting_another_out_takes_away(deltas):
    gram = layer_grams(deltas)
    found = subspaces(gram)
    for a, b in ((0, 1), (1, 0), (2, 0)):
        delta, (u, _, v) = dense(deltas[a]), dense_svd(deltas[b])
        kept = delta - u @ (u.T @ delta)
        kept = kept - (kept @ v) @ v.T
        shared = shared_directions(gram, found, a, b)
        close(share_within(found[a].values, shared)[0], 1 - kept.square().sum() / delta.square().sum())


def test_unrelated_directions_would_take_as_much_by_chance():
    pairs = [[low_rank(6, seed), low_rank(9, 1000 + seed)] for seed in range(200)]
    gram = together([layer_grams(pair) for pair in pairs])
    found = subspaces(gram)
    taken = share_within(found[0].values, shared_directions(gram, found, 0, 1)).mean()
    chance = share_by_chance(gram.shapes, found[1].ranks)
    assert gram.shapes[0].tolist() == [40, 28] and (chance == chance[0]).all()
    assert float(chance[0]) == pytest.approx(1 - (1 - 9 / 40) * (1 - 9 / 28))
    assert float(taken) == pytest.approx(float(chance[0]), abs=0.01)


def test_a_lora_that_does_not_reach_the_layer_has_nothing_in_common_there():
    gram = layer_grams([FIRST, None])
    found = subspaces(gram)
    inner = inner_products(gram)[0]
    close(cosines(inner), [[1.0, 0.0], [0.0, 0.0]])
    shared = shared_directions(gram, found, 0, 1)
    assert int(found[1].ranks) == 0 and float(overlaps(shared, [4])[0]) == 0.0 and len(principal_angles(shared)[0]) == 0
    assert float(share_within(found[0].values, shared)) == float(share_within(found[1].values, shared.turned())) == 0.0
    assert superposition(inner, (1.0, 1.0)) == pytest.approx(1.0)
    assert superposition(inner, (0.0, 1.0)) is None


def test_layers_are_told_together_as_one_by_one():
    several = [[low_rank(6, 1), low_rank(4, 2)], [deficient(6, 3), low_rank(4, 4)],
               [low_rank(6, 5, out=9, inputs=70, scale=1e-4), low_rank(4, 6, out=9, inputs=70, scale=30)]]
    one_by_one = [layer_grams(deltas) for deltas in several]
    gram = together(one_by_one)
    found = subspaces(gram)
    shared = shared_directions(gram, found, 0, 1)
    for i, own in enumerate(one_by_one):
        alone = subspaces(own)
        between = shared_directions(own, alone, 0, 1)
        close(found[0].values[i], alone[0].values[0])
        close(overlaps(shared, [4])[0][i], overlaps(between, [4])[0][0])
        close(principal_angles(shared)[i].deg2rad().cos(), principal_angles(between)[0].deg2rad().cos())
        close(share_within(found[0].values, shared)[i], share_within(alone[0].values, between)[0])
        assert rank_of_sum(gram, (1.0, 1.0))[i] == rank_of_sum(own, (1.0, 1.0))[0]
    assert shared.dimensions.tolist() == [4, 2, 4]


def test_deltas_of_different_layers_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        layer_grams([FIRST, low_rank(5, 2, out=41)])
