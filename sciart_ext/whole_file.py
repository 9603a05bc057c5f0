"""Files that appear whole or not at all: readers see the old one or the new one. What the system refuses is told."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import SciArtError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write into, which takes its place at the end; what fails on the way leaves nothing.

    Folders on the way are made. Raises `SciArtError` where it cannot be written or put in its place: on Windows no file
    can be replaced that another program has open.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    with _refusing(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes the file, UTF-8, whole or not at all. Raises `SciArtError`."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def delete(path: Path) -> None:
    """Deletes a file where it is there, or an empty folder. Raises `SciArtError` where that cannot be done."""
    with _refusing(path, "deleted"):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _refusing(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise SciArtError(path.name, f"cannot be {done}: {error.strerror}; accepted: close it in the program that has "
                                     "it open and try again, or another place") from error
    except (OSError, SafetensorError) as error:
        raise SciArtError(path.name, f"cannot be {done}: {getattr(error, 'strerror', None) or error}") from error
