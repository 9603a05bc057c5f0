"""Prompts of the rows, and the columns of subjects and triggers in them."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.guidance.words import (
    Subject,
    Words,
    find_words,
    mentions_of,
    mixed_prompt,
    own_prompt,
    subjects_of,
    told_in,
)

ROCKET, ROBOT = Subject("rocket", "red striped"), Subject("robot", "visor")


@pytest.mark.parametrize(("subjects", "prompt", "expected"), [
    ([ROCKET, ROBOT], "a rocket and a robot", "a red striped rocket and a red striped rocket"),
    ([ROCKET, ROBOT], "a (Rocket:1.2), [robot], robots", "a (red striped rocket:1.2), [red striped rocket], robots"),
    ([ROCKET, ROBOT], "a red striped rocket, a visor robot", "a red striped rocket, a red striped rocket"),
    ([ROCKET], "a rocket", "a red striped rocket"),
    ([Subject("rocket")], "a Rocket", "a rocket"),
    ([Subject("car", r"\d"), Subject("flying car", "blue")], "a flying car, a car", r"a \d car, a \d car"),
    ([ROBOT], "a rocket", "a rocket"),
])
def test_in_its_own_prompt_every_subject_is_the_one_with_its_trigger(subjects, prompt, expected):
    assert own_prompt(subjects[0], subjects, prompt) == expected


@pytest.mark.parametrize(("subjects", "prompt", "expected"), [
    ([ROCKET, ROBOT], "a rocket and a robot", "a red striped rocket and a visor robot"),
    ([ROCKET, ROBOT], "a (Rocket:1.2), [robot], robots", "a (red striped rocket:1.2), [visor robot], robots"),
    ([ROCKET, ROBOT], "a red striped rocket, a robot", "a red striped rocket, a visor robot"),
    ([ROCKET], "a rocket, a rocket", "a red striped rocket, a red striped rocket"),
    ([Subject("rocket", "red", 0), Subject("rocket", "golden", 1)], "a rocket, a golden rocket, a rocket",
     "a red rocket, a golden rocket, a rocket"),
    ([Subject("car", r"\d"), Subject("flying car", "blue")], "a flying car, a car", r"a blue flying car, a \d car"),
    ([ROBOT], "a rocket", "a rocket"),
])
def test_in_the_mixtures_prompt_every_subject_has_its_trigger(subjects, prompt, expected):
    assert mixed_prompt(subjects, prompt) == expected


def test_subjects_of_one_name_take_one_mention_each():
    first, second, third = subjects_of([("rocket", "red"), ("robot", ""), ("Rocket", "golden")])
    assert (first.mention, second.mention, third.mention) == (0, None, 1)


def test_mentions_are_columns_of_77_a_chunk():
    chunks = [[5, 6, 7, 5, 6], [6, 5, 6]]
    assert mentions_of([5, 6], chunks) == [[1, 2], [4, 5], [79, 80]]
    assert mentions_of([9], chunks) == []


TOKENS = {"": [], "rocket": [1], "flying car": [2, 3], "red": [4], "golden": [5]}


def find(subjects, prompt, mixed):
    return find_words(subjects, TOKENS, prompt, mixed, ["loras[0].subject", "loras[1].subject"], ["rocket", "space"])


def test_subjects_are_found_in_the_prompt_and_with_their_triggers_in_the_mixtures():
    words = find(subjects_of([("rocket", "red"), ("flying car", "")]), [[1, 9, 2, 3]], [[4, 1, 9, 2, 3]])
    assert words == Words(((1,), (3, 4)), ((1, 2), (4, 5)))


def test_two_of_one_kind_keep_to_their_mentions():
    subjects = subjects_of([("rocket", "red"), ("rocket", "golden")])
    words = find(subjects, [[1, 9, 1, 9, 1]], [[4, 1, 9, 5, 1, 9, 1]])
    assert words == Words(((1,), (3,)), ((1, 2), (4, 5)))


def test_a_subject_told_twice_has_the_columns_of_both():
    words = find(subjects_of([("rocket", "red"), ("flying car", "")]), [[1, 2, 3, 1]], [[4, 1, 2, 3, 4, 1]])
    assert words == Words(((1, 4), (2, 3)), ((1, 2, 5, 6), (3, 4)))


def test_of_words_within_words_the_longer_are_meant():
    subjects = [Subject("car"), Subject("flying car")]
    told = told_in(subjects, {"car": [3], "flying car": [2, 3]}, [[2, 3, 9, 3]])
    assert told == [([1, 2], 1), ([4], 0)]


@pytest.mark.parametrize("mixed", [[[4, 9, 2, 3]], [[2, 3, 4, 1]]], ids=["trigger apart", "another order"])
def test_a_mixture_with_other_subjects_than_the_prompt_is_refused(mixed):
    with pytest.raises(SciArtError, match="tells of other subjects, or in another order"):
        find(subjects_of([("rocket", "red"), ("flying car", "")]), [[1, 9, 2, 3]], mixed)


def test_a_subject_that_is_not_in_the_prompt_is_refused_with_what_is():
    with pytest.raises(SciArtError, match=r"loras\[1\].subject: 'flying car' is not in the prompt; .*rocket, space"):
        find(subjects_of([("rocket", ""), ("flying car", "")]), [[1, 9]], [[1, 9]])
    with pytest.raises(SciArtError, match="not in the prompt 2 times"):
        find(subjects_of([("rocket", ""), ("rocket", "red")]), [[1, 9]], [[1, 9]])


def test_means_are_over_the_words_of_each_subject():
    words = Words(((7, 8), (2,)), ((5,), (1, 2, 3)))
    maps = torch.rand(2, 4, 5, 77)
    assert torch.allclose(words.plain_means(maps), torch.stack([maps[..., 7:9].mean(-1), maps[..., 2]], 1))
    assert torch.allclose(words.mixed_means(maps), torch.stack([maps[..., 5], maps[..., 1:4].mean(-1)], 1))
