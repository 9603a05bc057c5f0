"""What calls of the pretended GPU's operators would cost on a real one.

An operator is one kernel, whatever it takes inside. A `_foreach_` operator is one kernel in several launches where
torch would cut it so (ATen/native/cuda/MultiTensorApply.cuh), and one kernel per tensor where torch takes its slow
route. A copy between devices is a launch but no kernel.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

ENGINE = "sciart_ext"

# ATen/native/cuda/MultiTensorApply.cuh: tensors per launch by the number of lists, blocks per launch, numbers per block
TENSORS_PER_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
BLOCKS_PER_LAUNCH = 320
BLOCK = 65536


@dataclass
class Counts:
    """Of everything that ran on the device in a while."""

    kernels: Counter[str] = field(default_factory=Counter)
    """by operator; views and allocations are none"""
    launches: int = 0
    """of kernels and of copies between devices"""
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(operator, file:line of the engine) for which the host stands still until the device is done"""
    bytes: int = 0
    """read and written by kernels; numbers that a broadcast repeats count once"""
    crossed: int = 0
    """bytes copied between host and device, either way"""


def engine_line() -> str:
    """file:line of the innermost frame in the engine, from its package on; "elsewhere" where there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition(f"/{ENGINE}/")
        if found:
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the tensor's numbers; those that lie in one place (stride 0) once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        count *= size if stride else min(size, 1)
    return count * tensor.element_size()


def foreach_launches(lists: Sequence[Sequence[torch.Tensor]]) -> int | None:
    """Launches of a `_foreach_` operator over these lists, results included; None on torch's slow route."""
    first = lists[0]
    for tensors in lists:
        same = all(one.dtype == tensors[0].dtype for one in tensors)
        if not same or any(one.stride() != other.stride() or not _dense(one) for one, other in zip(tensors, first)):
            return None
    most, launches, tensors, blocks = TENSORS_PER_LAUNCH[len(lists)], 0, 0, 0
    sizes = [one.numel() for one in first if one.numel()]
    for number, size in enumerate(sizes):
        tensors += 1
        chunks = -(-size // BLOCK)
        for chunk in range(chunks):
            blocks += 1
            ended = chunk == chunks - 1
            if blocks == BLOCKS_PER_LAUNCH or (ended and (tensors == most or number == len(sizes) - 1)):
                launches, blocks, tensors = launches + 1, 0, 0 if ended else 1
    return launches


def _dense(tensor: torch.Tensor) -> bool:
    """Whether its numbers fill their memory without gap or repetition, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
