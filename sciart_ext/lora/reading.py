"""Tensors and metadata of a LoRA file, read without running anything that it contains."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import SciArtError, quoted
from ..memory import unless_too_large
from .finite import PIECE, is_finite
from .opened import SMALL_TENSOR
from .pickled import read_pickle
from .safetensors_file import read_safetensors

SAFETENSORS = ".safetensors"
ALPHA = ".alpha"
_SUFFIXES = (SAFETENSORS, ".pt", ".ckpt", ".bin", ".pth")


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
    tensors, metadata = read_safetensors(path) if path.suffix.lower() == SAFETENSORS else (read_pickle(path), {})
    _check_finite(path, tensors)
    return tensors, metadata


def _check_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """In pieces, which take little memory; small tensors, of which there may be thousands, together. An alpha may be
    infinite where it is not used (LyCORIS' LoKr of two whole halves in half precision): who uses it looks."""
    together: dict[torch.dtype, list[str]] = {}
    for key, tensor in tensors.items():
        if tensor.is_meta or (key.endswith(ALPHA) and tensor.numel() == 1 and math.isinf(tensor)):
            continue
        if tensor.numel() < SMALL_TENSOR:
            together.setdefault(tensor.dtype, []).append(key)
        elif not is_finite(tensor):
            raise _not_finite(path, key)
    for keys in together.values():
        for start in range(0, len(keys), PIECE // SMALL_TENSOR):
            some = keys[start:start + PIECE // SMALL_TENSOR]
            if not is_finite(torch.cat([tensors[key].flatten() for key in some])):
                raise _not_finite(path, next(key for key in some if not is_finite(tensors[key])))


def _not_finite(path: Path, key: str) -> SciArtError:
    return SciArtError(path.name, f"{quoted(key)} holds NaN or infinity; the file is broken")
