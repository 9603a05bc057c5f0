"""Runs kept in a folder: taken up by the same question, not by another, and gone once it is answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("data", [b"", b"PK", b"half", b"\x93NUMPY", bytes(1000)], ids=range(5))
def test_a_file_that_is_no_run_is_made_again(tmp_path, data):
    runs = invented(2)
    KeptRuns(tmp_path / "runs", KEY).update(runs)
    (tmp_path / "runs" / "2.npz").write_bytes(data)
    (tmp_path / "runs" / "other.npz").write_bytes(data)
    np.savez(tmp_path / "runs" / "3.npz", trajectory=np.zeros(3), picture=np.zeros(3))
    np.save(tmp_path / "runs" / "array.npy", np.zeros(3))
    (tmp_path / "runs" / "array.npy").replace(tmp_path / "runs" / "1.npz")
    again = KeptRuns(tmp_path / "runs", KEY)
    assert list(again) == [0]
    again.update(runs)
    assert sorted(KeptRuns(tmp_path / "runs", KEY)) == [0, 1, 2, 3]
    again.forget()
    assert not (tmp_path / "runs").exists()


def test_a_process_that_is_killed_while_it_writes_a_run_leaves_the_runs_before_it(tmp_path):
    code = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/influence")
from invented import invented
from sciart_ext.influence.kept import KeptRuns
kept, runs = KeptRuns(Path(sys.argv[1]), {"prompt": "a rocket", "seed": 7, "words": ["rocket"]}), invented(2)
kept[0], kept[1] = runs[0], runs[1]
def half(path, data):
    with path.open("wb") as file:
        file.write(data[:100])
    print("writing", flush=True)
    time.sleep(600)
Path.write_bytes = half
kept[2] = runs[2]
"""
    folder = tmp_path / "runs"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=Path(__file__).parents[2], text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.communicate()
    runs = invented(2)
    again = KeptRuns(folder, KEY)
    assert sorted(again) == [0, 1] and all(equal(again[one], runs[one]) for one in again)
    again[2] = runs[2]
    assert sorted(path.name for path in folder.iterdir()) == ["0.npz", "1.npz", "2.npz", "question.json"]
    again.forget()
    assert not folder.exists()
