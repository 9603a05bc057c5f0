"""Tensors and metadata of a LoRA file, read without running anything that it contains."""

from __future__ import annotations

import functools
import io
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError, quoted
from ..memory import is_out_of_memory, unless_too_large
from .json_text import read_json

MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
MAX_KEY = 512
"""characters of a tensor's name"""
ARCHIVE = b"PK\x03\x04"
TOGETHER = 2**12
"""entries of a tensor, and tensors, that are looked at in one go"""
LONG_HEADER, MOST_COMMAS = 2**18, 8 * MAX_TENSORS
"""bytes from which on a header is looked at before it is read, and how many values it may have"""
PICKLE_BYTES, PICKLE_SHARE, LEGACY_READS = 100_000, 20, 300_000
"""A zip's pickle may have so many bytes and this part of the file's; of the format before, so many opcodes are read."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_INTEGERS = {"I64": torch.int64, "I32": torch.int32}
_READ = {**DTYPES, **_INTEGERS}
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.S)
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
    _check_finite(path, tensors)
    return tensors, metadata


def _check_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Small tensors, of which there may be thousands, are looked at together."""
    small: dict[torch.dtype, list[str]] = {}
    for key, tensor in tensors.items():
        if tensor.numel() < TOGETHER:
            small.setdefault(tensor.dtype, []).append(key)
    groups = [[key] for key, tensor in tensors.items() if tensor.numel() >= TOGETHER]
    groups += [keys[first:first + TOGETHER] for keys in small.values() for first in range(0, len(keys), TOGETHER)]
    for keys in groups:
        if not torch.isfinite(torch.cat([tensors[key].flatten() for key in keys])).all():
            wrong = next(key for key in keys if not torch.isfinite(tensors[key]).all())
            raise SciArtError(path.name, f"{wrong} holds NaN or infinity; the file is broken")


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
    text = file.read(length)
    if length > LONG_HEADER and _TEXT.sub(b"", text).count(b",") > MOST_COMMAS:
        raise SciArtError(path.name, "damaged: the header has too many values")
    try:
        header = read_json(text)
    except ValueError:
        raise SciArtError(path.name, "damaged: the header is not valid JSON") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise SciArtError(path.name, "damaged: the header is not a table of tensors")
    too_long = next((key for key in header if len(key) > MAX_KEY), None)
    if too_long is not None:
        raise SciArtError(path.name, f"a tensor's name has {len(too_long)} characters; at most {MAX_KEY} are accepted")
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
        is_shape = _are_counts(shape) and len(shape) <= MAX_DIMENSIONS and max(shape, default=0) < 2**31
        one_number = is_shape and math.prod(shape) == 1 and dtype in list(_INTEGERS)  # alpha, as kohya may write it
        if dtype not in list(DTYPES) and not one_number:
            raise SciArtError(path.name, f"{key} is stored as {quoted(str(dtype))}; accepted: "
                                         f"{', '.join(sorted(DTYPES))}")
        if not (is_shape and _are_counts(offsets) and len(offsets) == 2 and offsets[1] <= room
                and offsets[1] - offsets[0] == math.prod(shape) * _READ[dtype].itemsize):
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
    tensor = torch.empty(entry["shape"], dtype=_READ[entry["dtype"]], device="cpu")
    # numpy has no name for BF16, and a number has no bytes to write into
    if file.readinto(tensor.view(-1).view(torch.uint8).numpy()) != last - first:
        raise SciArtError(path.name, "damaged: it was cut short while it was read")
    return tensor


def read_numbers(path: Path, header: Mapping[str, dict]) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that are one number (alpha). header: `read_header`'s."""
    numbers = {key: entry for key, entry in header.items() if key != "__metadata__" and math.prod(entry["shape"]) == 1}
    with _opened(path) as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        found = {}
        for key, entry in numbers.items():
            file.seek(start + entry["data_offsets"][0])
            found[key] = _next_tensor(file, path, entry)
    return found


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """An archive is read twice: first without data, so that nothing is made that the file does not have. In the format
    before, torch 2.1 cannot do without; there memory is only written to as far as the file reaches."""
    _check_zip(path)
    with _opened(path) as file:
        is_archive = file.read(len(ARCHIVE)) == ARCHIVE
    for device in ("meta", "cpu") if is_archive else ("cpu",):
        tensors = _unpickled(path, device)
        if len(tensors) > MAX_TENSORS:
            raise SciArtError(path.name, f"{len(tensors)} tensors; at most {MAX_TENSORS} are accepted")
        _check_tensors(path, tensors, device)
    return tensors


def _check_zip(path: Path) -> None:
    """Refuses an archive that would unpack to more than it is, or whose pickle alone is long."""
    with _opened(path) as file:
        if not zipfile.is_zipfile(file):
            return
        size = os.fstat(file.fileno()).st_size
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise SciArtError(path.name, f"damaged: {quoted(str(error))}") from None
    if sum(entry.file_size for entry in entries) > size or any(entry.compress_type for entry in entries):
        raise SciArtError(path.name, "refused: it unpacks to more than it is")
    if any(entry.filename.endswith("data.pkl") and entry.file_size > PICKLE_BYTES + size // PICKLE_SHARE
           for entry in entries):
        raise SciArtError(path.name, "refused: it holds more than tensors")


class _Counted(io.BufferedReader):
    """A file of which only so many pieces are read: torch's unpickler reads its opcodes one by one."""

    left = LEGACY_READS

    def read(self, size: int | None = -1) -> bytes:
        self._count()
        return super().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        self._count()
        return super().readline(size)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError("too many opcodes")


def _unpickled(path: Path, device: str) -> dict[str, torch.Tensor]:
    try:
        with _opened(path) as file:
            data = torch.load(_Counted(file.raw), map_location=device, weights_only=True)
    except SciArtError:
        raise
    except Exception as error:  # of a damaged file the unpickler raises whatever it stumbles over
        if is_out_of_memory(error):
            raise
        cause = error.__context__ or error if isinstance(error, pickle.UnpicklingError) else error
        reason = quoted((str(cause) or type(cause).__name__).partition("\n")[0])
        if device == "meta" and "meta" in reason.lower():  # only plain tensors can be without data
            what = "holds what is not a plain tensor, but sparse, quantized or nested"
        elif isinstance(error, pickle.UnpicklingError):
            what = f"refused: it holds more than tensors, which could run code ({reason})"
        else:
            what = f"damaged: {reason}"
        raise SciArtError(path.name, what) from None
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    if not isinstance(data, dict) or not all(isinstance(key, str) and len(key) <= MAX_KEY for key in data):
        raise SciArtError(path.name, f"expected a table of tensors, got {type(data).__name__}")
    wrong = next((key for key, value in data.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is not None:
        raise SciArtError(path.name, f"{wrong} is {type(data[wrong]).__name__}, not a tensor")
    return data


def _check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], device: str) -> None:
    """Refuses what are no plain tensors, and more data than the file has bytes: views may repeat the same."""
    room, seen = path.stat().st_size, set()
    for key, tensor in tensors.items():
        if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != device:
            kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
            raise SciArtError(path.name, f"{key} is not a plain tensor ({kind}, {tensor.device.type})")
        if tensor.dtype not in DTYPES.values() and not (tensor.dtype in _WHOLE and tensor.numel() == 1):
            raise SciArtError(path.name, f"{key} holds {tensor.dtype}; accepted: {', '.join(sorted(DTYPES))}")
        if tensor.dim() > MAX_DIMENSIONS:
            raise SciArtError(path.name, f"{key} has {tensor.dim()} dimensions; at most {MAX_DIMENSIONS} are accepted")
        place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        if place not in seen:
            seen.add(place)
            room -= tensor.numel() * tensor.element_size()
        if room < 0:
            raise SciArtError(path.name, f"refused: {key} has more data than the file")
