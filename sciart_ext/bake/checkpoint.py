"""A safetensors file of a model, of any size: its header, and its tensors one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch

from ..errors import SciArtError, quoted
from ..lora.opened import DTYPES, UNREAD, opened
from ..lora.safetensors_file import read_header

MAX_HEADER_BYTES = 100_000_000
"""as safetensors has it"""
PIECE = 2**22
"""bytes that are copied at once"""
FLOATS = {**DTYPES, **{name: UNREAD[name] for name in ("F8_E4M3", "F8_E5M2")}}


class Stored(NamedTuple):
    """One tensor: its bytes are those from `first` to `last` of the file's data."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors in the order of their bytes, the metadata, and where in the file the data begins."""

    path: Path
    tensors: tuple[Stored, ...]
    metadata: dict[str, str]
    start: int

    @property
    def nbytes(self) -> int:
        """Of the data."""
        return self.tensors[-1].last if self.tensors else 0

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """The beginning of a file with the same tensors and this metadata."""
        table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        table |= {one.key: {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [one.first, one.last]}
                  for one in self.tensors}
        text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def read_checkpoint(path: Path) -> Checkpoint:
    """What the header tells. Raises `SciArtError` for what is no safetensors file, or not the whole of one."""
    with opened(path) as file:
        header, metadata, room = read_header(path, file, MAX_HEADER_BYTES)
        start = file.tell()
    tensors = tuple(sorted((_stored(path, key, value) for key, value in header.items()),
                           key=lambda one: (one.first, one.last)))
    end = 0
    for one in tensors:
        if one.first != end:
            raise SciArtError(path.name, "damaged: tensors overlap, or there is something between them")
        end = one.last
    if end != room:
        raise SciArtError(path.name, f"damaged: it has {room} of {end} bytes; download it again")
    return Checkpoint(path, tensors, metadata, start)


def _stored(path: Path, key: str, value: object) -> Stored:
    try:
        shape, (first, last) = tuple(value["shape"]), value["data_offsets"]
        stored = Stored(key, value["dtype"], shape, first, last)
    except (TypeError, KeyError, ValueError):
        raise SciArtError(path.name, f"damaged: {quoted(key)} is not told as a tensor is") from None
    counts = (*shape, first, last)
    if not isinstance(stored.dtype, str) or any(type(count) is not int or count < 0 for count in counts):
        raise SciArtError(path.name, f"damaged: {quoted(key)} is not told as a tensor is")
    if stored.dtype in FLOATS and last - first != math.prod(shape) * FLOATS[stored.dtype].itemsize:
        raise SciArtError(path.name, f"damaged: {quoted(key)} has {last - first} bytes, which is not its shape")
    return stored


def read_tensor(checkpoint: Checkpoint, file: BinaryIO, one: Stored) -> torch.Tensor:
    """A tensor of floats, with memory of its own."""
    data = torch.empty(one.last - one.first, dtype=torch.uint8)
    with _reading(checkpoint):
        file.seek(checkpoint.start + one.first)
        if file.readinto(data.numpy()) != len(data):
            raise SciArtError(checkpoint.path.name, "it was cut short while it was read")
    return data.view(FLOATS[one.dtype]).view(one.shape)


def pieces(checkpoint: Checkpoint, file: BinaryIO, one: Stored) -> Iterator[bytes]:
    """The bytes of a tensor of any kind, some at a time."""
    with _reading(checkpoint):
        file.seek(checkpoint.start + one.first)
    left = one.last - one.first
    while left:
        with _reading(checkpoint):
            piece = file.read(min(left, PIECE))
        if not piece:
            raise SciArtError(checkpoint.path.name, "it was cut short while it was read")
        left -= len(piece)
        yield piece


@contextmanager
def _reading(checkpoint: Checkpoint) -> Iterator[None]:
    """What the system refuses is told of the original, not of the copy."""
    try:
        yield
    except OSError as error:
        raise SciArtError(checkpoint.path.name, f"cannot be read: {error.strerror}") from error
