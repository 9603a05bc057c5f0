"""A safetensors file: its header, checked before anything is made of it, and its tensors."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch

from ..errors import SciArtError, quoted
from ..json_text import read_json
from .no_tensors import check_bytes
from .opened import (
    ACCEPTED,
    DTYPES,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    SMALL_TENSOR,
    UNREAD,
    check_keys,
    is_read,
    opened,
    unread,
)

MAX_HEADER_BYTES = 8 * 2**20
"""a text of them takes four times as much where one of its characters is a rare one"""
LONG_HEADER = 2**18
"""bytes from which on a header is looked at before it is read"""
MOST_BYTES = 2**50
"""that a header may speak of and be believed"""
_DTYPES = {**DTYPES, **UNREAD}
_TEXT = re.compile(rb'"[^"]*"')


class _Entry(NamedTuple):
    """What the header says of a tensor, checked: `count` numbers, which are the bytes from `first` to `last`."""

    first: int
    last: int
    key: str
    dtype: torch.dtype
    shape: list[int]
    count: int


def read_safetensors(path: Path, outline: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Its tensors in alphabetical order, and the metadata. outline: of all tensors but single numbers only the shapes,
    without data; so too of what is no float, which layers are not made of.

    Read, not mapped: a mapped file cannot be replaced on Windows, and one cut short ends the program elsewhere.
    """
    with opened(path) as file:
        entries, metadata = _header_of(file, path)
        start, tensors = file.tell(), {}
        for run in _runs(entry for entry in entries
                         if is_read(entry.dtype, entry.count) and (not outline or entry.count == 1)):
            tensors.update(zip((entry.key for entry in run), _tensors_of(run, file, path, start)))
    tensors.update((entry.key, unread(entry.shape, entry.dtype)) for entry in entries if entry.key not in tensors)
    return {key: tensors[key] for key in sorted(tensors)}, metadata


def _runs(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """What is read at once: a tensor, or neighbours that are small and may be thousands."""
    run: list[_Entry] = []
    for entry in entries:
        if run and not (entry.first == run[-1].last and max(entry.count, run[-1].count) < SMALL_TENSOR):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def _tensors_of(run: list[_Entry], file: BinaryIO, path: Path, start: int) -> list[torch.Tensor]:
    """The tensors of neighbours, whose bytes follow on each other."""
    whole = torch.empty(run[-1].last - run[0].first, dtype=torch.uint8)
    if file.tell() != start + run[0].first:
        file.seek(start + run[0].first)
    # as bytes: numpy has no name for BF16
    if file.readinto(whole.numpy()) != len(whole):
        raise SciArtError(path.name, "damaged: it was cut short while it was read")
    return [_numbers(part, entry, entry.first - run[0].first)
            for entry, part in zip(run, whole.split([entry.last - entry.first for entry in run]))]


def _numbers(part: torch.Tensor, entry: _Entry, place: int) -> torch.Tensor:
    """These bytes as what they are; place: where in memory they are, which may be no place for such numbers."""
    return (part.clone() if place % entry.dtype.itemsize else part).view(entry.dtype).view(entry.shape)


def _header_of(file: BinaryIO, path: Path) -> tuple[list[_Entry], dict[str, str]]:
    """The tensors in the order of their bytes, and the metadata; nothing has been read of the file yet, and what is
    left of it then are the tensors' bytes."""
    header, metadata, room = read_header(path, file, MAX_HEADER_BYTES)
    check_keys(path, header)
    return _entries(path, header, room), metadata


def read_header(path: Path, file: BinaryIO, most: int) -> tuple[dict[str, dict], dict[str, str], int]:
    """(what is told of each tensor, the metadata, bytes of the data that follow); most: bytes that a header may have.

    Raises `SciArtError` for what is no table of tensors.
    """
    check_bytes(path, file, safetensors=True)
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise SciArtError(path.name, "damaged: the header reaches beyond the end of the file; download it again")
    if length > most:
        raise SciArtError(path.name, f"header of {length} bytes; at most {most} are accepted")
    text = file.read(length)
    if length > LONG_HEADER and _has_too_many_values(text):
        raise SciArtError(path.name, "damaged: the header has too many values")
    try:
        header = read_json(text)
    except ValueError:
        raise SciArtError(path.name, "damaged: the header is not valid JSON") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise SciArtError(path.name, "damaged: the header is not a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise SciArtError(path.name, "damaged: the metadata is not a table of texts")
    return header, metadata, size - 8 - length


def _has_too_many_values(text: bytes) -> bool:
    """Whether it has more of them, or of what they are in, than a table of tensors of its length: such are made slowly.
    A tensor takes some fifty characters, with three brackets that open, and a comma for each dimension and some."""
    bare = _TEXT.sub(b"", text.replace(b"\\\\", b"").replace(b'\\"', b""))
    return (bare.count(b",") > min(len(text) // 6, 8 * MAX_TENSORS)
            or bare.count(b"[") + bare.count(b"{") > len(text) // 10)


def _entries(path: Path, header: dict[str, dict], room: int) -> list[_Entry]:
    """Refuses a header whose tensors are of no known precision, or not what the `room` bytes of data are."""
    offsets = [value.get("data_offsets") for value in header.values()]
    end = max((max(pair) for pair in offsets if _are_counts(pair, 2) and pair), default=0)
    if room < end < MOST_BYTES:
        raise SciArtError(path.name, f"damaged: its data lies beyond the end of the file, where {room} of {end} bytes "
                                     "are; download it again")
    entries = sorted(_entry(path, key, value, room) for key, value in header.items())
    end = 0
    for entry in entries:
        if entry.first != end:
            raise SciArtError(path.name, "damaged: tensors overlap, or there is something between them")
        end = entry.last
    if end != room:
        raise SciArtError(path.name, f"damaged: {room - end} bytes follow the last tensor")
    return entries


def _entry(path: Path, key: str, value: dict, room: int) -> _Entry:
    dtype, shape, offsets = str(value.get("dtype")), value.get("shape"), value.get("data_offsets")
    is_shape = _are_counts(shape, MAX_DIMENSIONS) and max(shape, default=0) < 2**31
    count = math.prod(shape) if is_shape else 0
    if dtype not in _DTYPES:
        raise SciArtError(path.name, f"{quoted(key)} is stored as {quoted(dtype)}; {ACCEPTED}")
    if not (is_shape and _are_counts(offsets, 2) and len(offsets) == 2 and offsets[1] <= room
            and offsets[1] - offsets[0] == count * _DTYPES[dtype].itemsize):
        raise SciArtError(path.name, f"damaged: {quoted(key)} lies beyond the end of the file, or has no proper shape")
    return _Entry(offsets[0], offsets[1], key, _DTYPES[dtype], shape, count)


def _are_counts(values: object, most: int) -> bool:
    """Whether it is a list of at most so many whole numbers from 0 on; true and false are none."""
    if not isinstance(values, list) or len(values) > most:
        return False
    for value in values:
        if type(value) is not int or value < 0:
            return False
    return True
