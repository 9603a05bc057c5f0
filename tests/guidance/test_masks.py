"""Masks from attention maps and the weights of their fusion."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from sciart_ext.compose.fusion import fusion_weights
from sciart_ext.guidance.masks import (
    masks_from_attention,
    resized,
    smoothed,
    told_by_boxes,
    with_boxes,
    within_boxes,
)
from sciart_ext.recipe.mask_picture import PREFIX, compact


def bump(y, x, size=12, height=1.0):
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return 0.2 + height * torch.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 4.0)


def test_each_subject_covers_where_its_attention_is_the_largest_share():
    masks = masks_from_attention(torch.stack([bump(3, 3), bump(8, 8, height=0.1)]), 0.3)
    assert masks.dtype == torch.bool
    assert masks[0, 3, 3] and masks[1, 8, 8]
    assert not masks.all(0).any()  # no two at one place
    assert not masks[:, 0, 11].any()  # nobody's


def test_a_higher_threshold_covers_less():
    maps = torch.stack([bump(3, 3), bump(8, 8)])
    low, high = masks_from_attention(maps, 0.2), masks_from_attention(maps, 0.8)
    assert (high & ~low).sum() == 0 and high.sum() < low.sum()


def test_a_map_without_contrast_covers_nothing():
    masks = masks_from_attention(torch.stack([torch.full((12, 12), 0.4), bump(8, 8)]), 0.3)
    assert not masks[0].any() and masks[1].any()


def test_smoothing_keeps_the_sum_away_from_borders():
    spot = torch.zeros(2, 5, 5)
    spot[0, 2, 2] = 16
    assert smoothed(spot)[0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert torch.equal(smoothed(torch.ones(3, 5, 5)), torch.ones(3, 5, 5))


def test_each_subject_may_have_an_opacity_of_its_own():
    masks = torch.eye(2).view(1, 2, 1, 2)
    weights = fusion_weights(masks, torch.tensor([[0.25, 1.0]]))
    assert weights.flatten().tolist() == [0.75, 0.0, 0.25, 0.0, 0.0, 1.0]


def test_what_opacity_leaves_is_the_mixtures():
    weights = fusion_weights(torch.tensor([1.0, 0.0]).view(2, 1, 1), opacity=0.25)
    assert weights.flatten().tolist() == [0.75, 0.25, 0]


LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]


def test_in_a_region_a_subject_is_all_over_it_or_where_its_attention_is():
    maps = torch.rand(3, 2, 4, 4) + 0.1
    whole, inside = (told_by_boxes(maps, [LEFT, None], whole) for whole in (True, False))
    assert torch.equal(whole[:, 1], maps[:, 1]) and torch.equal(inside[:, 1], maps[:, 1])
    assert not whole[:, 0, :, 2:].any() and not inside[:, 0, :, 2:].any()
    assert torch.equal(whole[:, 0, :, :2], maps[:, 0].amax((-2, -1), keepdim=True).expand(3, 4, 2))
    assert torch.equal(inside[:, 0, :, :2], maps[:, 0, :, :2])


def test_masks_within_regions_end_where_those_do():
    masks = within_boxes(torch.ones(1, 2, 4, 4, dtype=torch.bool), [RIGHT, None])
    assert masks[0, 0].tolist() == [[False, False, True, True]] * 4 and masks[0, 1].all()


def test_weights_sum_to_one_and_overlaps_are_shared():
    masks = torch.zeros(2, 4, 4)
    masks[0, :, :2], masks[1, :2] = 1, 1
    weights = fusion_weights(masks)
    assert torch.equal(weights.sum(0), torch.ones(4, 4))
    assert weights[:, 0, 0].tolist() == [0, 0.5, 0.5]  # both
    assert weights[:, 3, 0].tolist() == [0, 1, 0]
    assert weights[:, 0, 3].tolist() == [0, 0, 1]
    assert weights[:, 3, 3].tolist() == [1, 0, 0]  # none: the mixture


def test_soft_masks_leave_the_rest_to_the_mixture():
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
    assert torch.equal(large, masks.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_a_given_box_takes_its_place_and_the_others_keep_out():
    masks = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    boxed = with_boxes(masks, [None, [0, 0, 0.5, 0.5]])
    assert boxed[:, 1].sum() == 2 * 4 and not (boxed[:, 0] & boxed[:, 1]).any() and boxed.any(1).all()
    assert torch.equal(with_boxes(masks, [None, None]), masks)


def test_a_mask_picture_may_take_the_place_of_a_box():
    masks, maps, box = torch.rand(2, 2, 8, 8) > 0.5, torch.rand(2, 2, 8, 8), [0, 0, 0.5, 0.5]
    drawn = Image.new("L", (400, 400))
    drawn.paste(255, (0, 0, 200, 200))
    file = io.BytesIO()
    drawn.save(file, "PNG")
    picture = compact(PREFIX + base64.b64encode(file.getvalue()).decode("ascii"))
    for of in (with_boxes, within_boxes):
        assert torch.equal(of(masks, [None, picture]), of(masks, [None, box]))
    assert torch.equal(told_by_boxes(maps, [picture, None], True), told_by_boxes(maps, [box, None], True))
