"""Runs kept in a folder while an analysis is made, so that what was cancelled, or lost its machine, goes on from there.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
import torch

from ..whole_file import delete, sweep, write_text, written_whole
from .runs import Run


class KeptRuns(MutableMapping):
    """Runs by their set, each also a file of the folder, which is there from the first run on; runs of another question
    than `key` (JSON data) are not taken up and give way to the new ones, as do files that are no runs."""

    def __init__(self, folder: Path, key: object):
        self.folder = folder
        self._asked = folder / "question.json"
        self._key = json.dumps(key, sort_keys=True)
        self._runs: dict[int, Run] = {}
        if self._asked.is_file() and self._asked.read_bytes() == self._key.encode("utf-8"):
            found = {int(path.stem): _read(path) for path in folder.glob("*.npz") if path.stem.isdecimal()}
            self._runs = {one: run for one, run in found.items() if run is not None}

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
        if self.folder.is_dir():
            sweep(self.folder)
        for path in (self._asked, *self.folder.glob("*.npz*")):
            delete(path)


def _write(path: Path, run: Run) -> None:
    more = {} if run.words is None else {"words": run.words.numpy()}
    more |= {} if run.noise is None else {"noise": np.array(run.noise)}
    data = io.BytesIO()  # a ZipFile that cannot write complains once more when it is thrown away
    np.savez(data, trajectory=run.trajectory.numpy(), picture=run.picture, **more)
    with written_whole(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def _read(path: Path) -> Run | None:
    """A kept run; None for a file that is none, as a disk that failed may leave one: its picture is made again."""
    try:
        with np.load(path) as kept:
            words = torch.from_numpy(kept["words"]) if "words" in kept else None
            run = Run(torch.from_numpy(kept["trajectory"]), kept["picture"], words,
                      int(kept["noise"]) if "noise" in kept else None)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None
    return run if run.trajectory.ndim == 4 and run.picture.ndim == 3 else None
