"""The picture of attention and masks."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sciart_ext.guidance.sheet import Seen, subject_sheet
from sciart_ext.report.heat import GAP, HEADER, TILE


def sheet(picture, seen):
    return np.asarray(subject_sheet(picture, seen, ["rocket", "robot"])).astype(int)


def test_each_subject_has_a_row_of_three_over_the_picture():
    masks = torch.zeros(2, 8, 4, dtype=torch.bool)
    masks[1, 4:] = True
    made = sheet(Image.new("RGB", (64, 128), (200, 200, 200)), Seen(torch.rand(2, 8, 4), torch.rand(2, 8, 4), masks))
    assert made.shape == (2 * (TILE + HEADER), 3 * (TILE // 2 + GAP) - GAP, 3)
    first, second = made[HEADER:HEADER + TILE, -TILE // 2:], made[TILE + 2 * HEADER:, -TILE // 2:]
    assert len(np.unique(first.reshape(-1, 3), axis=0)) == 1  # covers nothing: the picture, grey
    assert (second[:TILE // 2] == first[0, 0]).all() and (second[TILE // 2 + 1:] != first[0, 0]).all()


def test_maps_are_shares_of_their_own_largest_value():
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    picture, masks = Image.new("RGB", (128, 128)), torch.ones(2, 8, 8, dtype=torch.bool)
    assert np.array_equal(sheet(picture, Seen(maps, maps, masks)), sheet(picture, Seen(maps, 0.1 * maps, masks)))
