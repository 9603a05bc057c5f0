"""A stranger's file, opened: what any file of tensors may have, and what the system may refuse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError, quoted

MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
MAX_KEY = 512
"""characters of a tensor's name"""
SMALL_TENSOR = 2**12
"""entries of a tensor below which it is read, and looked at, together with others"""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ACCEPTED = f"accepted: {', '.join(sorted(DTYPES))}"
WHOLE = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
UNREAD = {**WHOLE, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
"""what no layer is made of: of such tensors the shape alone is told, without data"""


def is_read(dtype: torch.dtype, count: int) -> bool:
    """Whether a tensor of so many entries is read: floats are, and single whole numbers, as kohya may write alpha."""
    return dtype in DTYPES.values() or (count == 1 and dtype in WHOLE.values())


def unread(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without data."""
    return torch.empty(shape, dtype=dtype, device="meta")


def check_read(path: Path, key: str, tensor: torch.Tensor) -> None:
    """Refuses a tensor that is stored as no layer's are."""
    if not is_read(tensor.dtype, tensor.numel()):
        name = next(name for name, dtype in UNREAD.items() if dtype == tensor.dtype)
        raise SciArtError(path.name, f"{quoted(key)} is stored as {name}; {ACCEPTED}")


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
