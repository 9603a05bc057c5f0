"""Runs kept in a folder while an analysis is made, so that what was cancelled, or lost its machine, goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
import torch

from ..whole_file import delete, write_text, written_whole
from .runs import Run


class KeptRuns(MutableMapping):
    """Runs by their set, each also a file of the folder, which is there from the first run on; runs of another question
    than `key` (JSON data) are not taken up and give way to the new ones."""

    def __init__(self, folder: Path, key: object):
        self.folder = folder
        self._asked = folder / "question.json"
        self._key = json.dumps(key, sort_keys=True)
        self._runs: dict[int, Run] = {}
        if self._asked.is_file() and self._asked.read_text(encoding="utf-8") == self._key:
            self._runs = {int(path.stem): _read(path) for path in folder.glob("*.npz")}

    def __getitem__(self, one: int) -> Run:
        return self._runs[one]

    def __setitem__(self, one: int, run: Run) -> None:
        if not self._runs:
            self._clear()
            write_text(self._asked, self._key)
        if self._runs.get(one) is not run:
            _write(self.folder / f"{one}.npz", run)
        self._runs[one] = run

    def __delitem__(self, one: int) -> None:
        del self._runs[one]
        delete(self.folder / f"{one}.npz")

    def __iter__(self) -> Iterator[int]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def forget(self) -> None:
        """The question is answered: takes the folder away; the runs stay in memory."""
        self._clear()
        delete(self.folder)

    def _clear(self) -> None:
        for path in (self._asked, *self.folder.glob("*.npz*"), *self.folder.glob("*.tmp")):
            delete(path)


def _write(path: Path, run: Run) -> None:
    words = {} if run.words is None else {"words": run.words.numpy()}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, trajectory=run.trajectory.numpy(), picture=run.picture, **words)


def _read(path: Path) -> Run:
    with np.load(path) as kept:
        words = torch.from_numpy(kept["words"]) if "words" in kept else None
        return Run(torch.from_numpy(kept["trajectory"]), kept["picture"], words)
