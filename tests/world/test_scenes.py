"""Scenes and captions: what may be in them, and how they are told."""

from __future__ import annotations

import numpy as np
import pytest

from sciart_ext.world.captions import caption
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, PLACES, SIDE, Scene, Thing, random_scene


def scenes(count, **options):
    rng = np.random.default_rng(7)
    return [random_scene(rng, **options) for _ in range(count)]


def test_scenes_have_one_to_three_things_of_every_kind_in_every_place():
    drawn = scenes(600)
    assert {len(scene.things) for scene in drawn} == {1, 2, 3}
    assert {scene.place for scene in drawn} == set(PLACES)
    assert {thing.kind for scene in drawn for thing in scene.things} == set(KINDS)
    assert {thing.palette for scene in drawn for thing in scene.things} == {0, 1, 2}


def test_things_lie_inside_the_picture_and_rarely_on_each_other():
    overlapping = 0
    for scene in scenes(400):
        for i, thing in enumerate(scene.things):
            assert thing.size <= thing.x <= SIDE - thing.size and thing.size <= thing.y <= SIDE - thing.size
            for other in scene.things[:i]:
                reach = thing.size + other.size
                overlapping += abs(thing.x - other.x) < reach - 1 and abs(thing.y - other.y) < reach - 1
    assert overlapping <= 12


def test_given_kinds_individuals_and_place_are_kept():
    for scene in scenes(20, kinds=["rocket", "robot"], individuals=["golden rocket", None], place="sea"):
        assert [(thing.kind, thing.individual) for thing in scene.things] == [("rocket", "golden rocket"),
                                                                              ("robot", None)]
        assert scene.place == "sea"


def test_the_same_seed_gives_the_same_scene():
    assert scenes(5) == scenes(5)


@pytest.mark.parametrize(("kinds", "individuals", "place", "told"), [
    (["rocket"], [None], "space", "a rocket in space"),
    (["octopus"], [None], "sea", "an octopus in the sea"),
    (["octopus", "octopus"], [None, None], "sea", "two octopuses in the sea"),
    (["rocket", "robot"], [None, None], "sky", "a rocket and a robot in the sky"),
    (["car", "dome", "car"], [None] * 3, "city", "two flying cars and a dome in the city"),
    (["planet", "dome", "station"], [None] * 3, "space", "a planet, a dome and a space station in space"),
    (["rocket", "rocket"], ["golden rocket", None], "sky", "a golden rocket and a rocket in the sky"),
    (["robot"], ["yellow visor robot"], "city", "a yellow visor robot in the city"),
])
def test_captions(kinds, individuals, place, told):
    things = tuple(Thing(kind, 64, 64, 20, individual=individual) for kind, individual in zip(kinds, individuals))
    assert caption(Scene(place, things)) == told


def test_with_random_numbers_the_order_of_things_varies():
    scene = Scene("sky", (Thing("rocket", 30, 30, 20), Thing("robot", 90, 90, 20)))
    rng = np.random.default_rng(0)
    assert {caption(scene, rng) for _ in range(20)} == {"a rocket and a robot in the sky",
                                                        "a robot and a rocket in the sky"}


def test_an_individual_ends_with_the_word_of_its_kind():
    for name, kind in INDIVIDUALS.items():
        assert name.endswith(KINDS[kind])
