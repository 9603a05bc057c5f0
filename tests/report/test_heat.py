"""Heatmaps: one scale, in proportion, over the picture, with a bar that tells the numbers."""

from __future__ import annotations

import numpy as np

from sciart_ext.report.heat import BAR, GAP, HEADER, TILE, coloured, heat_sheet, highest_of, overlaid


def test_colours_go_from_black_to_nearly_white_and_get_lighter():
    ramp = coloured(np.linspace(0, 3, 50)[None], 3).astype(int)[0]
    light = ramp @ [0.299, 0.587, 0.114]
    assert ramp[0].tolist() == [0, 0, 0] and ramp[-1].tolist() == [255, 255, 220] and (np.diff(light) > 0).all()
    assert (coloured(np.full((2, 2), 9.0), 3) == coloured(np.full((2, 2), 3.0), 3)).all()
    assert (coloured(np.zeros((2, 2)), 0) == 0).all()


def test_where_nothing_is_the_picture_is_seen_in_grey():
    picture = np.full((8, 8, 3), 200, np.uint8)
    values = np.zeros((4, 4))
    values[:, 2:] = 1
    made = overlaid(picture, values, 1).astype(int)
    assert (made[:, :4] == 120).all() and (made[:, 4:, 0] > 190).all()


def test_a_sheet_has_a_tile_for_each_map_and_a_bar():
    picture = np.full((64, 32, 3), 100, np.uint8)
    maps = [np.full((64, 32), 1.0), np.full((64, 32), 4.0), np.zeros((64, 32))]
    sheet = np.asarray(heat_sheet([picture] * 3, maps, ["a", "b", "수채화"], "delta E")).astype(int)
    assert sheet.shape == (HEADER + TILE + GAP + BAR, 3 * (TILE // 2 + GAP) - GAP, 3)
    tiles = [sheet[HEADER + 5, k * (TILE // 2 + GAP) + 5] for k in range(3)]
    assert tiles[1].sum() > tiles[0].sum() > 0 and len({tuple(tile) for tile in tiles}) == 3
    assert highest_of(maps) == 4


def test_a_few_extreme_pixels_do_not_darken_the_rest():
    values = np.ones((100, 100))
    values[0, :20] = 1000
    assert highest_of([values]) == 1
