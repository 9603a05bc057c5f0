"""Runs kept in a folder: taken up by the same question, not by another, and gone once it is answered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from invented import invented

from sciart_ext.influence.kept import KeptRuns

KEY = {"prompt": "a rocket", "seed": 7, "words": ["rocket"]}


def equal(a, b):
    return (torch.equal(a.trajectory, b.trajectory) and np.array_equal(a.picture, b.picture)
            and (a.words is b.words is None or torch.equal(a.words, b.words)))


@pytest.mark.parametrize("words", [0, 2])
def test_the_same_question_takes_them_up(tmp_path, words):
    runs = invented(2, words=words)
    KeptRuns(tmp_path / "runs", KEY).update({one: runs[one] for one in (0, 3)})
    again = KeptRuns(tmp_path / "runs", dict(reversed(KEY.items())))
    assert sorted(again) == [0, 3] and all(equal(again[one], runs[one]) for one in again)
    again.update(runs)
    assert sorted(KeptRuns(tmp_path / "runs", KEY)) == [0, 1, 2, 3]


def test_another_question_starts_anew(tmp_path):
    runs = invented(2)
    KeptRuns(tmp_path / "runs", KEY).update(runs)
    other = KeptRuns(tmp_path / "runs", {**KEY, "seed": 8})
    assert not other
    assert len(KeptRuns(tmp_path / "runs", KEY)) == 4  # nothing is lost before something new is made
    other[1] = runs[1]
    assert list(KeptRuns(tmp_path / "runs", {**KEY, "seed": 8})) == [1] and not KeptRuns(tmp_path / "runs", KEY)


def test_a_file_that_was_being_written_is_not_read(tmp_path):
    KeptRuns(tmp_path / "runs", KEY).update({0: invented(1)[0]})
    (tmp_path / "runs" / "1.npz.part").write_bytes(b"half")
    assert list(KeptRuns(tmp_path / "runs", KEY)) == [0]


def test_an_answered_question_leaves_nothing(tmp_path):
    kept = KeptRuns(tmp_path / "runs", KEY)
    kept.forget()
    kept.update(invented(1))
    del kept[1]
    assert sorted(path.name for path in kept.folder.iterdir()) == ["0.npz", "question.json"]
    kept.forget()
    assert not (tmp_path / "runs").exists() and list(kept) == [0]
