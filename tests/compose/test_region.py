"""Regions on the latent's grid: boxes, mask pictures, soft edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pngs import as_data_url, halves

from sciart_ext.compose.region import box_mask, feathered, region_cells, region_mask
from sciart_ext.recipe.mask_picture import compact

LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]


def test_a_box_covers_the_cells_whose_middle_lies_in_it():
    assert box_mask([0, 0, 0.5, 1], (2, 4)).tolist() == [[True, True, False, False]] * 2
    assert box_mask([0.5, 0.5, 1, 1], (2, 2)).tolist() == [[False, False], [False, True]]
    assert box_mask([0.4, 0.4, 0.41, 0.41], (4, 4)).sum() == 1  # never none
    assert box_mask([0, 0, 1, 1], (3, 5)).all()


@pytest.mark.parametrize("size", [(16, 24), (64, 64), (128, 96)])
def test_a_picture_of_a_box_is_that_box_at_every_size(size):
    picture = compact(as_data_url(halves(256, 256)))
    drawn, box = region_mask(picture, size), region_mask(LEFT, size)
    assert (drawn - box).abs().mean() <= 1 / size[1]  # enlarged, its edge is soft
    assert torch.equal(region_cells(picture, size), region_cells(LEFT, size))


def test_a_faint_mask_covers_some_cells_all_the_same():
    values = np.zeros((8, 8))
    values[2, 3] = 60
    cells = region_cells(compact(as_data_url(values)), (8, 8))
    assert cells.sum() == 1 and cells[2, 3]


def test_a_feathered_edge_is_a_straight_ramp_so_wide_a_share_of_the_shorter_side():
    mask = region_mask(LEFT, (32, 64), 0.25)
    assert torch.equal(mask, mask[:1].expand_as(mask))  # the border is no edge
    ramp = mask[0]
    assert (ramp[:28] == 1).all() and (ramp[37:] == 0).all()
    steps = ramp[28:36].diff()
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-6) and steps[0] == pytest.approx(-1 / 8)


@pytest.mark.parametrize("feather", [0.0, 0.1, 0.33, 0.5])
def test_halves_that_touch_still_sum_to_one(feather):
    total = region_mask(LEFT, (24, 24), feather) + region_mask(RIGHT, (24, 24), feather)
    assert torch.allclose(total, torch.ones(24, 24), atol=1e-6)


def test_without_feather_nothing_changes():
    mask = torch.rand(8, 8)
    assert torch.equal(feathered(mask, 0.0), mask)
