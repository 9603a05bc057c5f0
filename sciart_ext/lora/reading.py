"""Tensors and metadata of a LoRA file, read without running anything that it contains."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import torch

from ..errors import SciArtError

MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 50_000
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_INTEGERS = {"I64": torch.int64, "I32": torch.int32}
_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin", ".pth")


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of the file, on the CPU in the file's own precision, and its metadata.

    Raises `SciArtError` for what is missing, damaged, too large a header, not a number (NaN, infinity),
    or stored in a precision that is not a float.
    """
    path = Path(path)
    if not path.is_file():
        raise SciArtError(path.name, "no such file")
    if path.suffix.lower() not in _SUFFIXES:
        raise SciArtError(path.name, f"not a LoRA file; accepted: {', '.join(_SUFFIXES)}")
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
    """Path, time and bytes of a file: another whenever the file is."""
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


def read_header(path: Path) -> dict:
    """The header of a safetensors file: `{key: {"dtype", "shape", ...}, "__metadata__": {...}}`, checked."""
    if not path.is_file():
        raise SciArtError(path.name, "no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise SciArtError(path.name, "damaged: the header reaches beyond the end of the file")
        if length > MAX_HEADER_BYTES:
            raise SciArtError(path.name, f"header of {length} bytes; at most {MAX_HEADER_BYTES} are accepted")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise SciArtError(path.name, "damaged: the header is not valid JSON") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise SciArtError(path.name, "damaged: the header is not a table of tensors")
    if not all(isinstance(value, str) for value in header.get("__metadata__", {}).values()):
        raise SciArtError(path.name, "damaged: the metadata is not a table of texts")
    _check_entries(path, {key: entry for key, entry in header.items() if key != "__metadata__"}, size - 8 - length)
    return header


def _check_entries(path: Path, entries: dict[str, dict], room: int) -> None:
    """Refuses a header whose tensors are none, too many, not floats, or not within the `room` bytes of data."""
    if not entries:
        raise SciArtError(path.name, "contains no tensors")
    if len(entries) > MAX_TENSORS:
        raise SciArtError(path.name, f"{len(entries)} tensors; at most {MAX_TENSORS} are accepted")
    for key, entry in entries.items():
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        one_number = dtype in _INTEGERS and _are_counts(shape) and math.prod(shape) == 1  # alpha, as kohya may write it
        if dtype not in DTYPES and not one_number:
            raise SciArtError(path.name, f"{key} is stored as {dtype}; accepted: {', '.join(sorted(DTYPES))}")
        if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2 and offsets[1] <= room
                and offsets[1] - offsets[0] == math.prod(shape) * {**DTYPES, **_INTEGERS}[dtype].itemsize):
            raise SciArtError(path.name, f"damaged: {key} lies beyond the end of the file, or has no proper shape")


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    read_header(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise SciArtError(path.name, f"damaged: {error}") from None


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise SciArtError(path.name, f"refused: it holds more than tensors, which could run code ({reason})") from None
    except Exception as error:  # of a damaged file the unpickler raises whatever it stumbles over
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
