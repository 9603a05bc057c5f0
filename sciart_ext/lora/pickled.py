"""Tensors that torch has pickled: .pt, .ckpt and the like, in an archive or, before torch 1.6, one after the other.

Neither torch nor Python unpickles them: `unpickler` tells what they would make, which is checked, and then read.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError, quoted
from ..memory import is_out_of_memory
from .foreign import HYPERNETWORK, name_foreign
from .no_tensors import check_bytes, told_by_pickle
from .opened import ACCEPTED, DTYPES, MAX_DIMENSIONS, UNREAD, check_keys, is_read, opened, unread
from .unpickler import MOST_OPCODES, Storage, StoredTensor, unpickled

ARCHIVE = b"PK\x03\x04"
PICKLE_BYTES, PICKLE_SHARE = 100_000, 20
"""An archive's pickle may have so many bytes and this part of the file's."""
PIECE = 2**22
"""bytes that are read at once"""
_MAGIC, _PROTOCOL = 0x1950a86a20f9469cfc6c, 1001
_HALF = "; if it is half a download, download it again"
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Its tensors, of what is no float the shapes alone, and its numbers as tensors. Raises `SciArtError` for what is
    none, and for more data than the file has."""
    try:
        with opened(path) as file:
            check_bytes(path, file, safetensors=False)
            head = file.read(tarfile.BLOCKSIZE)
            if _is_tar(head):
                raise SciArtError("", "refused: a tar archive; accepted: what torch.save writes since 2018")
            file.seek(0)
            read = _read_archive if head.startswith(ARCHIVE) else _read_in_turn
            return read(path, file)
    except SciArtError as refusal:
        if refusal.field:
            raise
        raise SciArtError(path.name, _told_of(path) or refusal.message) from None
    except zipfile.BadZipFile:
        raise SciArtError(path.name, "damaged: an archive without its end, such as half a download; download it again"
                          ) from None
    except Exception as error:  # of a damaged file the readers raise whatever they stumble over
        if is_out_of_memory(error):
            raise
        reason = quoted((str(error) or type(error).__name__).partition("\n")[0])
        raise SciArtError(path.name, f"damaged: {reason}") from None


def _told_of(path: Path) -> str | None:
    """What a file is that is refused, where the words in it tell."""
    with opened(path) as file:
        return told_by_pickle(file.read(PIECE))


def _is_tar(head: bytes) -> bool:
    """Of the first format of all. Only this one header is looked at: tarfile would unpack what it finds in it."""
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _read_archive(path: Path, file: BinaryIO) -> dict[str, torch.Tensor]:
    archive = zipfile.ZipFile(file)
    size, entries = os.fstat(file.fileno()).st_size, {entry.filename: entry for entry in archive.infolist()}
    if not any(name.endswith(".pkl") for name in entries):
        raise SciArtError(path.name, "a ZIP archive of other files; unpack it and put in what is inside")
    if any(name.endswith("constants.pkl") for name in entries):
        raise SciArtError("", "refused: a TorchScript program")
    if sum(entry.file_size for entry in archive.infolist()) > size or any(
            entry.compress_type for entry in entries.values()):
        raise SciArtError("", "refused: it unpacks to more than it is")
    pickles = [name for name in entries if name.rpartition("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise SciArtError("", f"damaged: {len(pickles)} tables of tensors")
    if entries[pickles[0]].file_size > PICKLE_BYTES + size // PICKLE_SHARE:
        raise SciArtError("", "refused: it holds more than tensors")
    folder = pickles[0][:-len("data.pkl")]
    order = folder + "byteorder"
    if order in entries and archive.read(order) != b"little":
        raise SciArtError("", "damaged: its numbers are not in the order of this machine")
    with archive.open(pickles[0]) as table:
        tensors, numbers = _described(unpickled(table).value, path, size)
    needed = {tensor.storage for tensor in tensors.values()}
    _check_room(needed, size)
    kept = {}
    for storage in needed:
        with archive.open(f"{folder}data/{storage.key}") as stored:
            kept[storage] = _filled(storage, stored)
            if stored.read(1):
                raise ValueError(f"{storage.key} has more data than it says")
    return {**_made(tensors, kept), **numbers}


def _read_in_turn(path: Path, file: BinaryIO) -> dict[str, torch.Tensor]:
    """Pickles of what it is, of the tensors and of the storages' order, then their bytes, each after its count."""
    size, left, parts = os.fstat(file.fileno()).st_size, MOST_OPCODES, []
    for expected in (_MAGIC, _PROTOCOL, None, None, None):
        part = unpickled(file, left)
        if expected not in (None, part.value):
            raise SciArtError("", "damaged: it begins unlike what torch.save writes")
        parts.append(part)
        left = part.left
    system, table, order = parts[2].value, parts[3], parts[4].value
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise SciArtError("", "damaged: its numbers are not in the order of this machine")
    tensors, numbers = _described(table.value, path, size)
    if not isinstance(order, list) or not all(isinstance(key, str) and key in table.storages for key in order):
        raise SciArtError("", "damaged: its storages are not told")
    if len(set(order)) < len(order):
        raise SciArtError("", "damaged: a storage is there twice")
    needed, kept = {tensor.storage for tensor in tensors.values()}, {}
    _check_room(needed, size)
    for storage in map(table.storages.get, order):
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError(f"{storage.key} has another size than it says")
        if storage in needed:
            kept[storage] = _filled(storage, file)
        else:
            file.seek(_nbytes(storage), os.SEEK_CUR)
    return {**_made(tensors, kept), **numbers}


def _described(data: object, path: Path, room: int) -> tuple[dict[str, StoredTensor], dict[str, torch.Tensor]]:
    """The table of tensors, checked, and what it has as plain numbers; room: bytes of the file, which has no more data
    than that. Texts among them are as good as metadata."""
    if isinstance(data, dict) and isinstance(data.get("state_dict"), dict):
        data = data["state_dict"]
    told = _told_by_tables(data)
    if told:
        raise SciArtError(path.name, told)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SciArtError("", f"expected a table of tensors, got {_kind(data)}")
    tensors, numbers = {}, {}
    for key, value in data.items():
        if isinstance(value, StoredTensor):
            tensors[key] = value
        elif type(value) in (int, float):
            numbers[key] = torch.tensor(float(value), dtype=torch.float64)
        elif not isinstance(value, (str, bool, type(None))):
            raise SciArtError("", f"{quoted(key)} is {_kind(value)}, not a tensor")
    check_keys(path, data)
    if not tensors:
        raise SciArtError("", "holds no tensors")
    for key, tensor in tensors.items():
        room -= _bytes_of(key, tensor)
        if room < 0:
            raise SciArtError("", f"refused: {quoted(key)} has more data than the file{_HALF}")
    return tensors, numbers


def _told_by_tables(data: object) -> str | None:
    """What a table is that has tables in it: an embedding, an IP-Adapter, an upscaler; or, by layers' widths, pairs of
    them: a hypernetwork."""
    if not isinstance(data, dict):
        return None
    if any(type(key) is int and type(value) in (list, tuple) for key, value in data.items()):
        return HYPERNETWORK
    inner = {f"{key}.{name}": tensor.shape for key, value in data.items() if isinstance(value, dict)
             for name, tensor in value.items() if isinstance(tensor, StoredTensor)}
    return name_foreign(inner, {}) if inner else None


def _kind(value: object) -> str:
    return "Tensor" if isinstance(value, StoredTensor) else type(value).__name__


def _bytes_of(key: str, tensor: StoredTensor) -> int:
    """How many bytes it has in all. Refuses what is no plain tensor of floats, or reaches out of its storage."""
    storage, shape = tensor.storage, tensor.shape
    dtype, stored = _dtype_of(tensor), _STORAGES.get(storage.kind)
    if dtype is None or stored is None:
        raise SciArtError("", f"{quoted(key)} is not a plain tensor ({quoted(storage.kind)})")
    if len(shape) > MAX_DIMENSIONS:
        raise SciArtError("", f"{quoted(key)} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are accepted")
    if max(shape, default=0) >= 2**31:
        raise SciArtError("", f"refused: {quoted(key)} has more data than the file{_HALF}")
    count = torch.Size(shape).numel()
    if dtype not in (*DTYPES.values(), *UNREAD.values()):
        raise SciArtError("", f"{quoted(key)} holds {dtype}; {ACCEPTED}")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, tensor.stride))
    if count and (last + 1) * dtype.itemsize > storage.count * stored.itemsize:
        raise SciArtError("", f"damaged: {quoted(key)} reaches out of its data")
    return count * dtype.itemsize


def _dtype_of(tensor: StoredTensor) -> torch.dtype | None:
    return _STORAGES.get(tensor.storage.kind) if tensor.dtype is None else _DTYPES.get(tensor.dtype)


def _nbytes(storage: Storage) -> int:
    if storage.kind not in _STORAGES:
        raise SciArtError("", f"holds what is not a plain tensor ({quoted(storage.kind)})")
    return storage.count * _STORAGES[storage.kind].itemsize


def _check_room(storages: Collection[Storage], room: int) -> None:
    if sum(map(_nbytes, storages)) > room:
        raise SciArtError("", f"refused: it tells of more data than the file has{_HALF}")


def _filled(storage: Storage, stored: BinaryIO) -> torch.Tensor:
    """The bytes of a storage, read from where `stored` is."""
    data = torch.empty(_nbytes(storage), dtype=torch.uint8)
    whole = memoryview(data.numpy())
    for start in range(0, len(whole), PIECE):
        piece = whole[start:start + PIECE]
        if stored.readinto(piece) != len(piece):
            raise ValueError("it was cut short while it was read")
    return data


def _made(tensors: Mapping[str, StoredTensor], kept: Mapping[Storage, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, as views of their storages."""
    return {key: kept[tensor.storage].view(_dtype_of(tensor)).as_strided(tensor.shape, tensor.stride, tensor.offset)
            if _is_read(tensor) else unread(tensor.shape, _dtype_of(tensor)) for key, tensor in tensors.items()}


def _is_read(tensor: StoredTensor) -> bool:
    return is_read(_dtype_of(tensor), torch.Size(tensor.shape).numel())
