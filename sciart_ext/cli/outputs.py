"""Where results go: places are checked before any work, and what is finished is kept, if need be elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import SciArtError, shown
from ..whole_file import check_file_place

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def check_file(path: Path, endings: Sequence[str], field: str = "out", size: int = 2**16) -> None:
    """Refuses a file with none of these endings, or one of so many bytes that could not be written there."""
    accepted = f"accepted: a name that ends in {', '.join(endings)}"
    if os.path.isdir(path):  # which is False for names that are too long
        raise SciArtError(field, f"{path} is a folder; accepted: a file's name, such as "
                                 f"{path / f'sciart{endings[0]}'}")
    if not path.suffix:
        raise SciArtError(field, f"{shown(str(path))} has no ending; {accepted}")
    if path.suffix.lower() not in endings:
        raise SciArtError(field, f"{path.name}; {accepted}")
    check_file_place(path, size)


def free(path: Path, named: Callable[[Path], Sequence[Path]] = lambda path: [path]) -> Path:
    """The path, or with -2, -3 and so on after its name the first of which nothing is there. named: the files that are
    called after it."""
    number, found = 1, path
    while any(map(os.path.lexists, named(found))):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def keep(path: Path, save: Callable[[Path], object]) -> None:
    """Saves what is finished. Where that fails after all it is saved beside its place, in the working directory or in
    the folder for temporary files, and the error that is raised tells where."""
    try:
        save(path)
        return
    except SciArtError as error:
        refused = error
    for other in _elsewhere(path):
        try:
            save(other)
        except SciArtError:  # the first is told
            continue
        raise type(refused)(refused.field, f"{refused.message}; it is kept as {other}")
    raise refused


def _elsewhere(path: Path) -> Iterator[Path]:
    for folder in (path.parent, Path.cwd(), Path(tempfile.gettempdir())):
        for ending in dict.fromkeys((path.suffix, ".png") if path.suffix.lower() in PICTURES else (path.suffix,)):
            yield free(folder / f"{path.stem}{ending}")
