"""Masks from attention maps and the weights of their fusion."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.guidance.masks import fusion_weights, masks_from_attention, resized


def test_a_mask_is_the_union_over_words_of_what_reaches_the_threshold():
    maps = torch.tensor([[[0.0, 0.2], [0.3, 1.0]], [[4.0, 1.0], [1.3, 1.0]]])
    assert masks_from_attention(maps, 0.3).tolist() == [[True, False], [True, True]]
    assert masks_from_attention(maps[:1], 0.3).tolist() == [[False, False], [True, True]]
    assert not masks_from_attention(torch.zeros(1, 2, 2), 0.3).any()


def test_weights_sum_to_one_and_overlaps_are_shared():
    masks = torch.zeros(2, 4, 4)
    masks[0, :, :2], masks[1, :2] = 1, 1
    weights = fusion_weights(masks)
    assert torch.equal(weights.sum(0), torch.ones(4, 4))
    assert weights[:, 0, 0].tolist() == [0, 0.5, 0.5]  # both
    assert weights[:, 3, 0].tolist() == [0, 1, 0]
    assert weights[:, 0, 3].tolist() == [0, 0, 1]
    assert weights[:, 3, 3].tolist() == [1, 0, 0]  # none: the base row


def test_soft_masks_leave_the_rest_to_the_base_row():
    weights = fusion_weights(torch.tensor([0.25, 0.5]).view(2, 1, 1))
    assert weights.flatten().tolist() == [0.25, 0.25, 0.5]
    weights = fusion_weights(torch.tensor([1.0, 0.5]).view(2, 1, 1))
    assert weights.flatten().tolist() == pytest.approx([0, 2 / 3, 1 / 3])


def test_masks_of_ones_are_the_mean_of_the_rows():
    weights = fusion_weights(torch.ones(5, 3, 2, 2))  # five images
    assert torch.allclose(weights[:, 1:], torch.full((5, 3, 2, 2), 1 / 3)) and not weights[:, 0].any()


@pytest.mark.parametrize("lead", [(2,), (3, 2)])
def test_masks_are_brought_to_the_latents_size(lead):
    masks = torch.rand(*lead, 4, 6) > 0.5
    large = resized(masks, (8, 12))
    assert large.shape == (*lead, 8, 12)
    assert torch.equal(large, masks.float().repeat_interleave(2, -1).repeat_interleave(2, -2))
