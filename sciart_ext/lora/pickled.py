"""Tensors that torch has pickled: .pt, .ckpt and the like, unpickled without anything that could run."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import SciArtError, quoted
from ..memory import is_out_of_memory
from .opened import ACCEPTED, DTYPES, MAX_DIMENSIONS, check_keys, opened

ARCHIVE = b"PK\x03\x04"
PICKLE_BYTES, PICKLE_SHARE, LEGACY_READS = 100_000, 20, 300_000
"""A zip's pickle may have so many bytes and this part of the file's; of the format before, so many opcodes are read."""
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """An archive is read twice: first without data, so that nothing is made that the file does not have. In the format
    before, torch 2.1 cannot do without; there memory is only written to as far as the file reaches."""
    with opened(path) as file:
        is_archive = file.read(len(ARCHIVE)) == ARCHIVE
        file.seek(0)
        # torch unpacks the ones into a folder, and runs the others' programs: neither is how LoRAs are saved
        if tarfile.is_tarfile(file):
            raise SciArtError(path.name, "refused: a tar archive; accepted: what torch.save writes since 2018")
        file.seek(0)
        if zipfile.is_zipfile(file):
            _check_zip(path, file)
    for device in ("meta", "cpu") if is_archive else ("cpu",):
        tensors = _unpickled(path, device)
        check_keys(path, tensors)
        _check_tensors(path, tensors, device)
    return tensors


def _check_zip(path: Path, file: BinaryIO) -> None:
    """Refuses an archive that would unpack to more than it is, whose pickle alone is long, or that is a program."""
    size = os.fstat(file.fileno()).st_size
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise SciArtError(path.name, f"damaged: {quoted(str(error))}") from None
    if any(entry.filename.endswith("constants.pkl") for entry in entries):
        raise SciArtError(path.name, "refused: a TorchScript program")
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
        with opened(path) as file:
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
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SciArtError(path.name, f"expected a table of tensors, got {type(data).__name__}")
    wrong = next((key for key, value in data.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is not None:
        raise SciArtError(path.name, f"{quoted(wrong)} is {type(data[wrong]).__name__}, not a tensor")
    return data


def _check_tensors(path: Path, tensors: Mapping[str, torch.Tensor], device: str) -> None:
    """Refuses what are no plain tensors, and more data than the file has bytes: views may repeat the same."""
    room, seen = path.stat().st_size, set()
    for key, tensor in tensors.items():
        if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != device:
            kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
            raise SciArtError(path.name, f"{quoted(key)} is not a plain tensor ({kind}, {tensor.device.type})")
        if tensor.dtype not in DTYPES.values() and not (tensor.dtype in _WHOLE and tensor.numel() == 1):
            raise SciArtError(path.name, f"{quoted(key)} holds {tensor.dtype}; {ACCEPTED}")
        if tensor.dim() > MAX_DIMENSIONS:
            raise SciArtError(path.name, f"{quoted(key)} has {tensor.dim()} dimensions; at most {MAX_DIMENSIONS} "
                                         "are accepted")
        place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        if place not in seen:
            seen.add(place)
            room -= tensor.numel() * tensor.element_size()
        if room < 0:
            raise SciArtError(path.name, f"refused: {quoted(key)} has more data than the file")
