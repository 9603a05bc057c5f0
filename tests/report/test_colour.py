"""Colour distances against known values."""

from __future__ import annotations

import numpy as np

from sciart_ext.report.colour import distances


def flat(*rgb):
    return np.full((4, 5, 3), rgb, np.uint8)


def test_distances_are_per_pixel_and_in_cielab():
    from_black = {(255, 255, 255): 100.0, (255, 0, 0): np.linalg.norm([53.24, 80.09, 67.20])}
    for colour, expected in from_black.items():
        found = distances(flat(*colour), flat(0, 0, 0))
        assert found.shape == (4, 5) and np.allclose(found, expected, atol=0.05)
    assert not distances(flat(9, 99, 200), flat(9, 99, 200)).any()
