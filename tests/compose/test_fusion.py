"""How predictions of several rows become one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sciart_ext.compose.by_distance import ByDistance, distance_weights, patch_cosines
from sciart_ext.compose.by_region import ByRegion
from sciart_ext.compose.fusion import Average, Weights, fused
from sciart_ext.recipe.composition import CompositionSettings

LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]


def predictions(pairs=3, images=2, size=(8, 8), seed=0):
    return torch.randn(images, pairs, 4, *size, generator=torch.Generator().manual_seed(seed))


def same(noise):
    return noise


def test_composite_averages_what_is_predicted_with_and_without_the_prompt():
    cond, uncond = predictions(), predictions(seed=1)
    told, without = fused(cond, uncond, Average().weights(cond, 0.5, same))
    assert torch.allclose(told, cond.mean(1), atol=1e-6) and torch.allclose(without, uncond.mean(1), atol=1e-6)


def test_guiding_each_pair_before_fusing_is_the_same():
    cond, uncond = predictions().double(), predictions(seed=1).double()
    weights = torch.rand(2, 3, 8, 8, dtype=torch.double)
    told, without = fused(cond, uncond, Weights(weights, weights))
    each = (weights.unsqueeze(2) * (uncond + 7 * (cond - uncond))).sum(1)
    assert torch.allclose(without + 7 * (told - without), each)


def test_patch_cosines_are_those_of_the_flattened_patches():
    a, b = predictions(2, size=(6, 5)), predictions(1, size=(6, 5), seed=1)
    found = patch_cosines(a, b, 2)
    assert found.shape == (2, 2, 3, 3)
    for y, x in ((0, 0), (2, 1), (1, 2)):  # the last one is narrower
        patch = (..., slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
        expected = F.cosine_similarity(a[patch].flatten(2), b[patch].flatten(2), dim=-1)
        assert torch.allclose(found[..., y, x], expected, atol=1e-5)


def test_where_a_lora_parts_more_from_the_base_model_it_has_more_to_say():
    noise = predictions(1).expand(2, 3, 4, 8, 8).clone()
    noise[:, 1, :, :, :4] += 0.5 * predictions(1, seed=1)[:, 0, :, :, :4]
    noise[:, 2, :, :, 4:] += 0.5 * predictions(1, seed=2)[:, 0, :, :, 4:]
    shares = distance_weights(noise, 2, 0.001)
    assert torch.allclose(shares.sum(1), torch.ones(2, 8, 8))
    assert (shares[:, 0, :, :4] > 0.9).all() and (shares[:, 1, :, 4:] > 0.9).all()
    assert torch.allclose(distance_weights(noise, 2, 100.0), torch.full((2, 2, 8, 8), 0.5), atol=1e-2)
    assert torch.equal(shares[..., ::2, ::2], shares[..., 1::2, 1::2])  # one for each patch


def test_loras_that_do_nothing_share_and_nothing_is_not_a_number():
    assert torch.equal(distance_weights(torch.zeros(1, 3, 4, 5, 7), 4, 0.01), torch.full((1, 2, 5, 7), 0.5))


def test_distances_are_those_of_the_noise_not_of_the_predictions():
    cond, noise = predictions(), predictions(seed=3)
    weights = ByDistance(CompositionSettings(temperature=0.1)).weights(cond, 0.5, lambda given: noise)
    assert torch.equal(weights.cond[:, 1:], distance_weights(noise, 2, 0.1))


def test_spatial_keeps_the_base_model_in_the_negative_prompts_prediction():
    weights = ByDistance(CompositionSettings(recenter=0.25)).weights(predictions(), 0.5, same)
    assert (weights.cond[:, 0] == 0).all() and (weights.uncond[:, 0] == 0.25).all()
    assert torch.allclose(weights.uncond[:, 1:], 0.75 * weights.cond[:, 1:])
    for part in weights:
        assert torch.allclose(part.sum(1), torch.ones(2, 8, 8))


def test_each_region_has_its_lora_and_the_rest_the_others():
    cond = predictions()
    weights = ByRegion([LEFT, [0.5, 0.5, 1, 1]]).weights(cond, 0.5, same).cond[0]
    assert (weights[1, :, :4] == 1).all() and (weights[2, 4:, 4:] == 1).all() and (weights[0, :4, 4:] == 1).all()
    assert torch.equal(weights.sum(0), torch.ones(8, 8))


def test_overlapping_regions_average():
    weights = ByRegion([[0, 0, 1, 1], LEFT]).weights(predictions(), 0.5, same).cond[0]
    assert weights[:, 0, 0].tolist() == [0, 0.5, 0.5] and weights[:, 0, 7].tolist() == [0, 1, 0]


def test_a_feathered_region_fades_into_the_rest():
    weights = ByRegion([LEFT], 0.5).weights(predictions(size=(16, 16)), 0.5, same).cond[0]
    assert weights[1, 0].tolist() == pytest.approx(sorted(weights[1, 0].tolist(), reverse=True))
    assert 0.3 < weights[0, 0, 7] < 0.5 < weights[0, 0, 8] < 0.7
