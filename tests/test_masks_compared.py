"""What `benchmarks.masks` tells of masks beside boxes."""

import numpy as np
import torch

from benchmarks.masks import against, best, boxes_of
from sciart_ext.world.oracle import Reading, Seen

LEFT, RIGHT, TOP = (0, 0, 64, 128), (64, 0, 128, 128), (0, 0, 128, 64)


def seen(*things):
    return Reading(tuple(Seen(kind, None, box, 1.0) for kind, box in things), {})


def test_boxes_are_given_to_subjects_of_their_kind_in_every_way():
    reading = seen(("rocket", LEFT), ("robot", TOP), ("rocket", RIGHT))
    assert boxes_of(reading, ["robot", "rocket"]) == [[TOP, LEFT], [TOP, RIGHT]]
    assert boxes_of(reading, ["rocket", "rocket"]) == [[LEFT, RIGHT], [RIGHT, LEFT]]
    assert boxes_of(reading, ["rocket", "submarine"]) == boxes_of(reading, ["robot", "robot"]) == []


def test_a_mask_is_held_against_its_box():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, :1] = True
    box = torch.zeros(4, 4, dtype=torch.bool)
    box[:, :2] = True
    assert against(mask, box) == (0.5, 1.0, 0.5, 0.25)
    assert against(torch.zeros_like(mask), box) == (0.0, 0.0, 0.0, 0.0)


def test_the_order_of_boxes_is_the_one_that_fits():
    left = torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    masks = torch.stack([left, ~left])
    assert np.allclose(best(masks, [[RIGHT, LEFT], [LEFT, RIGHT]]), (1, 1, 1, 0.5))
    assert np.allclose(best(masks, [[RIGHT, LEFT]]), (0, 0, 0, 0.5))
