"""Reading files that anybody may have put into a folder of presets: plain files of that folder, of a limited size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import SciArtError
from ..json_text import read_json


def read_limited(path: Path, most: int, field: str) -> bytes:
    """What is in the file. Raises `SciArtError` for what is more than `most` bytes, for links out of the file's folder,
    and for what is no plain file or cannot be read."""
    try:
        real = path.resolve(strict=True)
        if real.parent != path.parent.resolve():
            raise SciArtError(field, f"{path.name} is a link to another folder; accepted: a file in this one")
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise SciArtError(field, f"{path.name} is no file")
        with real.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise SciArtError(field, f"{path.name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > most:
        raise SciArtError(field, f"{path.name} has more than {most} bytes, which is the most that is accepted")
    return data


def read_text(path: Path, most: int, field: str) -> str:
    """The same as text, UTF-8, with or without a mark of it at its beginning."""
    try:
        return read_limited(path, most, field).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SciArtError(field, f"{path.name} cannot be read: it is not UTF-8 ({error.reason})") from None


def read_json_file(path: Path, most: int, field: str) -> object:
    """The same as the value of a JSON text."""
    try:
        return read_json(read_text(path, most, field))
    except SciArtError:
        raise
    except ValueError as error:
        raise SciArtError(field, f"{path.name} cannot be read: {error}") from None


def one_line(text: str) -> str:
    """What others have written, so that it stays in its line and can be written anywhere."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(sign if sign.isprintable() else " " for sign in text)
