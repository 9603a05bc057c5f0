"""Prompts of the rows, and the columns of subjects and triggers in them."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.guidance.words import Subject, Words, find_words, mentions_of, subjects_of


@pytest.mark.parametrize(("subject", "prompt", "expected"), [
    (Subject("rocket", "red striped"), "a rocket and a robot", "a red striped rocket and a robot"),
    (Subject("rocket", "red striped"), "a (Rocket:1.2), rockets", "a (red striped Rocket:1.2), rockets"),
    (Subject("rocket", "red"), "a red rocket, a rocket", "a red rocket, a red rocket"),
    (Subject("rocket", "red", mention=1), "a rocket and a rocket", "a rocket and a red rocket"),
    (Subject("rocket"), "a rocket", "a rocket"),
    (Subject("flying car", r"\d"), "a flying car", r"a \d flying car"),
    (Subject("robot", "red"), "a rocket", "a rocket"),
])
def test_the_trigger_goes_before_the_subject(subject, prompt, expected):
    assert subject.own_prompt(prompt) == expected


def test_subjects_of_one_name_take_one_mention_each():
    first, second, third = subjects_of([("rocket", "red"), ("robot", ""), ("Rocket", "golden")])
    assert (first.mention, second.mention, third.mention) == (0, None, 1)


def test_mentions_are_columns_of_77_a_chunk():
    chunks = [[5, 6, 7, 5, 6], [6, 5, 6]]
    assert mentions_of([5, 6], chunks) == [[1, 2], [4, 5], [79, 80]]
    assert mentions_of([9], chunks) == []


TOKENS = {"rocket": [1], "flying car": [2, 3], "red": [4], "golden": [5]}


def find(subjects, prompts):
    return find_words(subjects, TOKENS, prompts, ["loras[0].subject", "loras[1].subject"], ["rocket", "space"])


def test_every_row_has_the_subjects_words_and_the_own_row_its_trigger():
    subjects = subjects_of([("rocket", "red"), ("flying car", "")])
    words = find(subjects, [[[1, 9, 2, 3]], [[4, 1, 9, 2, 3]], [[1, 9, 2, 3]]])
    entries = set(zip(words.rows.tolist(), words.columns.tolist(), words.subjects.tolist()))
    assert entries == {(0, 1, 0), (1, 2, 0), (1, 1, 0), (2, 1, 0),
                       (0, 3, 1), (0, 4, 1), (1, 4, 1), (1, 5, 1), (2, 3, 1), (2, 4, 1)}


def test_two_of_one_kind_keep_to_their_mentions():
    subjects = subjects_of([("rocket", "red"), ("rocket", "golden")])
    words = find(subjects, [[[1, 9, 1]], [[4, 1, 9, 1]], [[1, 9, 5, 1]]])
    entries = set(zip(words.rows.tolist(), words.columns.tolist(), words.subjects.tolist()))
    assert entries == {(0, 1, 0), (1, 2, 0), (1, 1, 0), (2, 1, 0), (0, 3, 1), (1, 4, 1), (2, 4, 1), (2, 3, 1)}


def test_a_subject_that_is_not_in_the_prompt_is_refused_with_what_is():
    with pytest.raises(SciArtError, match=r"loras\[1\].subject: 'flying car' is not in the prompt; .*rocket, space"):
        find(subjects_of([("rocket", ""), ("flying car", "")]), [[[1, 9]]] * 3)
    with pytest.raises(SciArtError, match="not in the prompt 2 times"):
        find(subjects_of([("rocket", ""), ("rocket", "red")]), [[[1, 9]]] * 3)


def test_picking_takes_each_words_map_of_its_row():
    maps = torch.rand(2, 3, 4, 5, 77)
    words = Words(torch.tensor([0, 2]), torch.tensor([7, 9]), torch.tensor([0, 1]))
    picked = words.pick(maps)
    assert picked.shape == (2, 2, 4, 5)
    assert torch.equal(picked[1, 0], maps[1, 0, :, :, 7]) and torch.equal(picked[0, 1], maps[0, 2, :, :, 9])
