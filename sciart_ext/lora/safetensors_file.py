"""A safetensors file: its header, checked before anything is made of it, and its tensors."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError, quoted
from ..json_text import read_json
from .opened import ACCEPTED, DTYPES, MAX_DIMENSIONS, MAX_TENSORS, check_keys, opened

MAX_HEADER_BYTES = 32 * 2**20
LONG_HEADER, MOST_COMMAS = 2**18, 8 * MAX_TENSORS
"""bytes from which on a header is looked at before it is read, and how many values it may have"""
_INTEGERS = {"I64": torch.int64, "I32": torch.int32}
_READ = {**DTYPES, **_INTEGERS}
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.S)


def read_safetensors(path: Path, outline: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Its tensors in alphabetical order, and the metadata. outline: of all tensors but single numbers only the shapes,
    without data.

    Read, not mapped: a mapped file cannot be replaced on Windows, and one cut short ends the program elsewhere.
    """
    with opened(path) as file:
        header, metadata = _header_of(file, path)
        start, tensors = file.tell(), {}
        for key, entry in header.items():
            tensors[key] = torch.empty(entry["shape"], dtype=_READ[entry["dtype"]],
                                       device="meta" if outline and math.prod(entry["shape"]) != 1 else "cpu")
        for key, tensor in sorted(tensors.items(), key=lambda item: header[item[0]]["data_offsets"]):
            if tensor.device.type == "cpu":
                _fill(tensor, file, path, start + header[key]["data_offsets"][0])
    return {key: tensors[key] for key in sorted(tensors)}, metadata


def _fill(tensor: torch.Tensor, file: BinaryIO, path: Path, place: int) -> None:
    """Reads the tensor's bytes from this place of the file."""
    if file.tell() != place:
        file.seek(place)
    # as bytes: numpy has no name for BF16
    if file.readinto(tensor.view(-1).view(torch.uint8).numpy()) != tensor.numel() * tensor.element_size():
        raise SciArtError(path.name, "damaged: it was cut short while it was read")


def _header_of(file: BinaryIO, path: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """The entries of the tensors, checked, and the metadata; nothing has been read of the file yet, and what is left of
    it then are the tensors' bytes."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise SciArtError(path.name, "damaged: the header reaches beyond the end of the file")
    if length > MAX_HEADER_BYTES:
        raise SciArtError(path.name, f"header of {length} bytes; at most {MAX_HEADER_BYTES} are accepted")
    text = file.read(length)
    if length > LONG_HEADER and _TEXT.sub(b"", text).count(b",") > MOST_COMMAS:
        raise SciArtError(path.name, "damaged: the header has too many values")
    try:
        header = read_json(text)
    except ValueError:
        raise SciArtError(path.name, "damaged: the header is not valid JSON") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise SciArtError(path.name, "damaged: the header is not a table of tensors")
    if not all(isinstance(value, str) for value in header.get("__metadata__", {}).values()):
        raise SciArtError(path.name, "damaged: the metadata is not a table of texts")
    metadata = header.pop("__metadata__", {})
    check_keys(path, header)
    _check_entries(path, header, size - 8 - length)
    return header, metadata


def _check_entries(path: Path, entries: dict[str, dict], room: int) -> None:
    """Refuses a header whose tensors are not floats, or not what the `room` bytes of data are."""
    for key, entry in entries.items():
        dtype, shape, offsets = str(entry.get("dtype")), entry.get("shape"), entry.get("data_offsets")
        is_shape = _are_counts(shape) and len(shape) <= MAX_DIMENSIONS and max(shape, default=0) < 2**31
        one_number = is_shape and math.prod(shape) == 1 and dtype in _INTEGERS  # alpha, as kohya may write it
        if dtype not in DTYPES and not one_number:
            raise SciArtError(path.name, f"{quoted(key)} is stored as {quoted(dtype)}; {ACCEPTED}")
        if not (is_shape and _are_counts(offsets) and len(offsets) == 2 and offsets[1] <= room
                and offsets[1] - offsets[0] == math.prod(shape) * _READ[dtype].itemsize):
            raise SciArtError(path.name, f"damaged: {quoted(key)} lies beyond the end of the file, or has no proper "
                                         "shape")
    end = 0
    for first, last in sorted(entry["data_offsets"] for entry in entries.values()):
        if first != end:
            raise SciArtError(path.name, "damaged: tensors overlap, or there is something between them")
        end = last
    if end != room:
        raise SciArtError(path.name, f"damaged: {room - end} bytes follow the last tensor")


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
