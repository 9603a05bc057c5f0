"""The trained oracle on freshly drawn scenes, which it has never seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sciart_ext.world.drawing import draw
from sciart_ext.world.oracle import Oracle
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, SIDE, STYLES, Scene, Thing

HALVES = ((34, 64), (94, 64))


@pytest.fixture(scope="module")
def oracle():
    return Oracle.load()


def pair(first, second, place="space", styles=None, seed=1):
    things = tuple(Thing(kind, x, y, 25, individual=individual)
                   for (kind, individual), (x, y) in zip((first, second), HALVES))
    return draw(Scene(place, things, seed), styles)


def share(outcomes):
    outcomes = list(outcomes)
    return sum(outcomes) / len(outcomes)


def test_two_things_of_any_kinds_are_told_counted_and_found(oracle):
    kinds = list(itertools.product(KINDS, KINDS))
    drawings = [pair((a, None), (b, None), place, seed=i)
                for i, ((a, b), place) in enumerate(zip(kinds, itertools.cycle(("sky", "sea", "space", "city"))))]
    readings = oracle.read([drawing.picture for drawing in drawings])
    assert share(sorted(seen.kind for seen in reading.objects) == sorted(both)
                 for both, reading in zip(kinds, readings)) >= 0.96
    for drawing, reading in zip(drawings, readings):
        for box in drawing.boxes:
            assert min(np.abs(np.array(seen.box) - box).max() for seen in reading.objects) < 8


def test_individuals_are_told_from_ordinary_things_and_from_each_other(oracle):
    for name, kind in INDIVIDUALS.items():
        drawings = [pair((kind, name), (kind, None), place, seed=seed)
                    for seed, place in enumerate(("sky", "sea", "space", "city"))]
        for reading in oracle.read([drawing.picture for drawing in drawings]):
            assert (reading.count(kind), reading.count(kind, name)) == (2, 1), name
            own = next(seen for seen in reading.objects if seen.individual == name)
            assert own.box[0] < SIDE / 2


def test_two_rockets_of_different_names_are_both_seen(oracle):
    reading, = oracle.read([pair(("rocket", "red striped rocket"), ("rocket", "golden rocket")).picture])
    assert {seen.individual for seen in reading.objects} == {"red striped rocket", "golden rocket"}


@pytest.mark.parametrize("style", STYLES)
def test_a_styles_strength_is_read(oracle, style):
    read = {}
    for strength in (0.0, 0.6, 1.0):
        drawings = [pair(("rocket", None), ("dome", None), place, {style: strength}, seed)
                    for seed, place in enumerate(("sky", "sea", "space", "city"))]
        readings = oracle.read([drawing.picture for drawing in drawings])
        read[strength] = np.mean([reading.styles[style] for reading in readings])
        assert all(reading.present(style) == (strength > 0) for reading in readings)
        assert all(not reading.present(other) for reading in readings for other in STYLES if other != style)
    assert all(abs(value - strength) < 0.12 for strength, value in read.items())


def test_an_empty_place_has_no_objects_and_no_style(oracle):
    drawings = [draw(Scene(place, (), seed)) for place in ("sky", "sea", "space", "city") for seed in range(5)]
    for reading in oracle.read([drawing.picture for drawing in drawings]):
        assert reading.objects == () and not any(map(reading.present, STYLES))


def test_pictures_of_another_size_are_read_too(oracle):
    picture = pair(("robot", "yellow visor robot"), ("planet", None)).picture
    larger = picture.repeat(4, 0).repeat(4, 1)
    reading, = oracle.read([larger])
    assert reading.count("robot", "yellow visor robot") == 1 and reading.count("planet") == 1
