"""Poses as openpose draws them: joints in its colours, in any size, whole and undistorted."""

from __future__ import annotations

import numpy as np
import pytest

from sciart_ext.errors import SciArtError
from sciart_ext.pipeline.poses import COLOURS, LIMBS, POSES, pose_picture


@pytest.mark.parametrize("name", list(POSES))
def test_every_joint_has_openpose_s_colour_where_it_is(name):
    picture = np.asarray(pose_picture(name, 512, 768))
    assert picture.shape == (768, 512, 3)
    for joint, (x, y) in POSES[name].items():
        assert tuple(picture[round(y * 768), round(x * 512)]) == COLOURS[joint]


@pytest.mark.parametrize("name", list(POSES))
def test_limbs_join_joints_that_are_there_and_the_rest_is_black(name):
    picture = np.asarray(pose_picture(name, 512, 768)).astype(int)
    there = [(a, b) for a, b in LIMBS if a in POSES[name] and b in POSES[name]]
    for (a, b), colour in zip(LIMBS, COLOURS):
        if (a, b) in there:
            (x0, y0), (x1, y1) = POSES[name][a], POSES[name][b]
            middle = picture[round((y0 + y1) / 2 * 768), round((x0 + x1) / 2 * 512)]
            assert np.abs(middle - 0.6 * np.array(colour)).max() <= 1
    black = (picture.max(-1) == 0).mean()
    assert 0.9 < black < 0.99


@pytest.mark.parametrize(("width", "height"), [(512, 512), (768, 512), (512, 1024)])
def test_in_other_shapes_it_is_whole_in_the_middle(width, height):
    picture = np.asarray(pose_picture("standing", width, height)).max(-1) > 0
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    assert abs((columns[0] + columns[-1]) / 2 - width / 2) < 3
    assert rows[0] > 0 and rows[-1] < height - 1
    high, wide = rows[-1] - rows[0], columns[-1] - columns[0]
    standing = np.asarray(pose_picture("standing", 512, 768)).max(-1) > 0
    rows, columns = np.flatnonzero(standing.any(1)), np.flatnonzero(standing.any(0))
    assert high / wide == pytest.approx((rows[-1] - rows[0]) / (columns[-1] - columns[0]), rel=0.03)


def test_an_unknown_pose_is_refused():
    with pytest.raises(SciArtError, match="no pose 'siting'"):
        pose_picture("siting", 64, 64)
