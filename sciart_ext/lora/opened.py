"""A stranger's file, opened: what any file of tensors may have, and what the system may refuse."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError

MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
MAX_KEY = 512
"""characters of a tensor's name"""
SMALL_TENSOR = 2**12
"""entries of a tensor below which it is read, and looked at, together with others"""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ACCEPTED = f"accepted: {', '.join(sorted(DTYPES))}"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file to read from; what the system refuses, then or on the way, is a `SciArtError`."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise SciArtError(path.name, "no such file") from None
    except OSError as error:
        raise SciArtError(path.name, f"cannot be read: {error.strerror}; where another program writes it, try again "
                                     "when it has ended") from None


def fingerprint(path: Path) -> tuple[str, int, int]:
    """Path, time and bytes of a file: another whenever the file is. Raises `SciArtError` where it is not there."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise SciArtError(path.name, "no such file") from None
    except OSError as error:
        raise SciArtError(path.name, f"cannot be read: {error.strerror}") from None
    return str(path), stat.st_mtime_ns, stat.st_size


def check_keys(path: Path, keys: Collection[str]) -> None:
    """Refuses a table of tensors that is empty or too long, or has names that are."""
    if not keys:
        raise SciArtError(path.name, "contains no tensors")
    if len(keys) > MAX_TENSORS:
        raise SciArtError(path.name, f"{len(keys)} tensors; at most {MAX_TENSORS} are accepted")
    long = next((key for key in keys if len(key) > MAX_KEY), None)
    if long is not None:
        raise SciArtError(path.name, f"a tensor's name has {len(long)} characters; at most {MAX_KEY} are accepted")
