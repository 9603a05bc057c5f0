"""Tensors and metadata of a LoRA file, read without running anything that it contains."""

from __future__ import annotations

import functools
import json
import math
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError
from ..memory import is_out_of_memory, unless_too_large

MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_INTEGERS = {"I64": torch.int64, "I32": torch.int32}
_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin", ".pth")


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of the file, on the CPU in the file's own precision, and its metadata.

    Every tensor has memory of its own: whatever becomes of the file, what was read of it stays. Raises `SciArtError`
    for what is missing, damaged, too large a header or for memory, not a number (NaN, infinity), or stored in a
    precision that is not a float.
    """
    path = Path(path)
    if not path.is_file():
        raise SciArtError(path.name, "no such file")
    if path.suffix.lower() not in _SUFFIXES:
        raise SciArtError(path.name, f"not a LoRA file; accepted: {', '.join(_SUFFIXES)}")
    return unless_too_large(functools.partial(_read, path),
                            lambda: SciArtError(path.name, "does not fit in main memory; accepted: a smaller file"))


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if path.suffix.lower() == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    else:
        tensors, metadata = _read_pickle(path), {}
    if not tensors:
        raise SciArtError(path.name, "contains no tensors")
    for key, tensor in tensors.items():
        _check_tensor(path, key, tensor)
    return tensors, metadata


def fingerprint(path: Path) -> tuple[str, int, int]:
    """Path, time and bytes of a file: another whenever the file is. Raises `SciArtError` where it is not there."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise SciArtError(path.name, "no such file") from None
    except OSError as error:
        raise SciArtError(path.name, f"cannot be read: {error.strerror}") from None
    return str(path), stat.st_mtime_ns, stat.st_size


def read_header(path: Path) -> dict:
    """The header of a safetensors file: `{key: {"dtype", "shape", ...}, "__metadata__": {...}}`, checked."""
    with _opened(path) as file:
        return _header_of(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file to read from; what the system refuses, then or on the way, is a `SciArtError`."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise SciArtError(path.name, "no such file") from None
    except OSError as error:
        raise SciArtError(path.name, f"cannot be read: {error.strerror}; where another program writes it, try again "
                                     "when it has ended") from None


def _header_of(file: BinaryIO, path: Path) -> dict:
    """The header, where it is all that has been read of the file: the tensors' bytes follow."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise SciArtError(path.name, "damaged: the header reaches beyond the end of the file")
    if length > MAX_HEADER_BYTES:
        raise SciArtError(path.name, f"header of {length} bytes; at most {MAX_HEADER_BYTES} are accepted")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise SciArtError(path.name, "damaged: the header is not valid JSON") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise SciArtError(path.name, "damaged: the header is not a table of tensors")
    if not all(isinstance(value, str) for value in header.get("__metadata__", {}).values()):
        raise SciArtError(path.name, "damaged: the metadata is not a table of texts")
    _check_entries(path, {key: entry for key, entry in header.items() if key != "__metadata__"}, size - 8 - length)
    return header


def _check_entries(path: Path, entries: dict[str, dict], room: int) -> None:
    """Refuses a header whose tensors are none, too many, not floats, or not what the `room` bytes of data are."""
    if not entries:
        raise SciArtError(path.name, "contains no tensors")
    if len(entries) > MAX_TENSORS:
        raise SciArtError(path.name, f"{len(entries)} tensors; at most {MAX_TENSORS} are accepted")
    for key, entry in entries.items():
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        one_number = dtype in _INTEGERS and _are_counts(shape) and math.prod(shape) == 1  # alpha, as kohya may write it
        if dtype not in DTYPES and not one_number:
            raise SciArtError(path.name, f"{key} is stored as {dtype}; accepted: {', '.join(sorted(DTYPES))}")
        if not (_are_counts(shape) and len(shape) <= MAX_DIMENSIONS and max(shape, default=0) < 2**31
                and _are_counts(offsets) and len(offsets) == 2 and offsets[1] <= room
                and offsets[1] - offsets[0] == math.prod(shape) * {**DTYPES, **_INTEGERS}[dtype].itemsize):
            raise SciArtError(path.name, f"damaged: {key} lies beyond the end of the file, or has no proper shape")
    end = 0
    for first, last in sorted(entry["data_offsets"] for entry in entries.values()):
        if first != end:
            raise SciArtError(path.name, "damaged: tensors overlap, or there is something between them")
        end = last
    if end != room:
        raise SciArtError(path.name, f"damaged: {room - end} bytes follow the last tensor")


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read, not mapped: a mapped file cannot be replaced on Windows, and one cut short ends the program elsewhere."""
    with _opened(path) as file:
        header = _header_of(file, path)
        metadata = header.pop("__metadata__", {})
        tensors = {key: _next_tensor(file, path, entry)
                   for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"])}
    return {key: tensors[key] for key in sorted(tensors)}, metadata


def _next_tensor(file: BinaryIO, path: Path, entry: dict) -> torch.Tensor:
    """The tensor that follows, in memory of its own."""
    first, last = entry["data_offsets"]
    data = torch.empty(last - first, dtype=torch.uint8, device="cpu")
    if file.readinto(data.numpy()) != last - first:
        raise SciArtError(path.name, "damaged: it was cut short while it was read")
    return data.view({**DTYPES, **_INTEGERS}[entry["dtype"]]).reshape(entry["shape"])


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise SciArtError(path.name, f"refused: it holds more than tensors, which could run code ({reason})") from None
    except Exception as error:  # of a damaged file the unpickler raises whatever it stumbles over
        if is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SciArtError(path.name, f"damaged: {reason}") from None
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SciArtError(path.name, f"expected a table of tensors, got {type(data).__name__}")
    wrong = next((key for key, value in data.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is not None:
        raise SciArtError(path.name, f"{wrong} is {type(data[wrong]).__name__}, not a tensor")
    return data


def _check_tensor(path: Path, key: str, tensor: torch.Tensor) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise SciArtError(path.name, f"{key} is not a plain tensor ({tensor.layout}, {tensor.device.type})")
    if tensor.dtype not in DTYPES.values() and (tensor.is_floating_point() or tensor.numel() > 1):
        raise SciArtError(path.name, f"{key} holds {tensor.dtype}; accepted: {', '.join(sorted(DTYPES))}")
    if not torch.isfinite(tensor).all():
        raise SciArtError(path.name, f"{key} holds NaN or infinity; the file is broken")
