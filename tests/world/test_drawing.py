"""Pictures of scenes, in the base style and in the three others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sciart_ext.world.drawing import draw, placed
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, PALETTES, PLACES, SIDE, STYLES, Scene, Thing
from sciart_ext.world.shapes import colours_of, parts_of

SCENE = Scene("space", (Thing("rocket", 40, 60, 30), Thing("robot", 95, 70, 24)), seed=5)


def difference(a, b):
    return np.abs(a.picture.astype(float) - b.picture).mean()


def test_a_picture_has_128_pixels_a_side_and_is_the_same_every_time():
    first, second = draw(SCENE), draw(SCENE)
    assert first.picture.shape == (SIDE, SIDE, 3) and first.picture.dtype == np.uint8
    assert np.array_equal(first.picture, second.picture)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_at_strength_zero_is_the_base_style(style):
    assert np.array_equal(draw(SCENE, {style: 0.0}).picture, draw(SCENE).picture)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_more_the_stronger_it_is(style):
    plain = draw(SCENE)
    weak, strong = (difference(draw(SCENE, {style: strength}), plain) for strength in (0.4, 1.0))
    assert 1 < weak < strong


def test_styles_lie_over_each_other():
    mixed = draw(SCENE, dict.fromkeys(STYLES, 0.6))
    for style in STYLES:
        without = draw(SCENE, {other: 0.6 for other in STYLES if other != style})
        assert difference(mixed, without) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_every_thing_is_visible_in_every_place(kind, place):
    for palette in range(PALETTES):
        scene = Scene(place, (Thing(kind, 64, 64, 34, palette),), seed=3)
        with_it, without = draw(scene), draw(dataclasses.replace(scene, things=()))
        (x0, y0, x1, y1), = with_it.boxes.round().astype(int)
        inside = np.abs(with_it.picture.astype(int) - without.picture).max(-1)[y0:y1, x0:x1]
        assert (inside > 30).mean() > 0.2, (kind, place, palette)


def test_boxes_are_those_of_the_polygons():
    drawing = draw(SCENE)
    for thing, box in zip(SCENE.things, drawing.boxes):
        points = np.concatenate([part.points for part in placed(thing)])
        assert np.allclose(box, [*points.min(0), *points.max(0)])
        assert box[2] - box[0] <= 2.7 * thing.size and box[3] - box[1] <= 2.1 * thing.size


def test_a_flipped_thing_is_its_mirror_image():
    thing = Thing("submarine", 64, 64, 30)
    there, back = placed(thing), placed(dataclasses.replace(thing, flipped=True))
    for part, mirrored in zip(there, back):
        assert np.allclose(part.points[:, 0] - 64, 64 - mirrored.points[:, 0])


@pytest.mark.parametrize("name", INDIVIDUALS)
def test_an_individual_looks_like_no_ordinary_thing_of_its_kind(name):
    kind = INDIVIDUALS[name]
    own = draw(Scene("sky", (Thing(kind, 64, 64, 36, individual=name),)))
    for palette in range(PALETTES):
        other = draw(Scene("sky", (Thing(kind, 64, 64, 36, palette),)))
        x0, y0, x1, y1 = own.boxes[0].round().astype(int).clip(0, SIDE)
        assert np.abs(own.picture.astype(int) - other.picture)[y0:y1, x0:x1].mean() > 15


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_has_a_colour(kind):
    for individual in [None, *(name for name, owner in INDIVIDUALS.items() if owner == kind)]:
        for palette in range(PALETTES):
            roles = {part.role for part in parts_of(kind, individual)}
            assert roles <= set(colours_of(kind, palette, individual))


def test_the_two_parts_of_science_have_strengths_of_their_own():
    plain, grid, machines = draw(SCENE), draw(SCENE, {"blueprint": 1.0}), draw(SCENE, {"machinery": 1.0})
    both = draw(SCENE, {"science": 1.0})
    corner = np.s_[:20, :20]  # nothing stands there
    assert np.array_equal(machines.picture[corner], plain.picture[corner])
    assert np.array_equal(grid.picture[corner], both.picture[corner])
    assert 1 < difference(machines, plain) and 1 < difference(grid, both)
