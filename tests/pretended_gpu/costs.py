"""What one call of an operator would cost on a real GPU.

An operator is one kernel, whatever it takes inside. A `_foreach_` operator is one kernel in several launches where
torch would cut it so (ATen/native/cuda/MultiTensorApply.cuh), and one kernel per tensor where torch takes its slow
route. A copy between devices is a launch but no kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from . import pinned
from .call import Call
from .leaves import tensors_in
from .operators import COPIES, GATHERING, INDEXED, OVERWRITING, WAITING
from .tensor import Elsewhere

# ATen/native/cuda/MultiTensorApply.cuh: tensors per launch by the number of lists, blocks per launch, numbers per block
TENSORS_PER_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
BLOCKS_PER_LAUNCH = 320
BLOCK = 65536


def crossings(call: Call, results: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, bool]]:
    """(what is copied between devices, whether the host waits for it)."""
    name, args = call.operator.name, call.args
    if name in INDEXED:
        for index in args[1]:
            if index is not None and not isinstance(index, Elsewhere):
                yield index, True
    if name not in COPIES:
        return
    free = bool(call.argument("non_blocking"))
    if name == "_to_copy":  # to the host without waiting it copies into pinned memory
        source = args[0]
        if isinstance(source, Elsewhere) and call.to == "cpu":
            yield source, not free
        elif call.to not in (None, "cpu") and not isinstance(source, Elsewhere):
            yield source, not (free and _sent_as_it_is(source, results[0]))
        return
    for target, source in zip(args[0], args[1]) if name == "_foreach_copy_" else [(args[0], args[1])]:
        if isinstance(source, Elsewhere) and not isinstance(target, Elsewhere):
            yield source, not (free and pinned.is_pinned(target) and target.is_contiguous())
        elif isinstance(target, Elsewhere) and not isinstance(source, Elsewhere):
            yield source, not (free and _sent_as_it_is(source, target))


def _sent_as_it_is(source: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether a CPU tensor is sent from its own pinned memory, not from a converted copy, which is not pinned."""
    laid_alike = source.is_contiguous() or (_dense(source) and source.stride() == target.stride())
    return pinned.is_pinned(source) and source.dtype == target.dtype and laid_alike


def waits(call: Call) -> bool:
    """Whether the host waits for its result, copies between devices apart."""
    name = call.operator.name
    if name in INDEXED:  # how many of a mask are true decides the result's size
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in call.args[1])
    return name in WAITING or (name == "repeat_interleave" and call.argument("output_size") is None)


def kernels_and_launches(call: Call, results: Sequence[torch.Tensor]) -> tuple[int, int]:
    """How many, for an operator that runs on the device."""
    if not call.operator.name.startswith("_foreach_"):
        return 1, 1
    lists = [one for one in call.args if isinstance(one, (list, tuple)) and one and isinstance(one[0], torch.Tensor)]
    launches = foreach_launches([*lists, results] if results else lists)
    return (len(lists[0]), len(lists[0])) if launches is None else (1, launches)


def bytes_moved(call: Call, results: Sequence[torch.Tensor]) -> int:
    """Read and written by an operator that runs on the device."""
    name, args = call.operator.name, call.args
    only_written = tensors_in([call.kwargs["out"]]) if "out" in call.kwargs else []
    if name in OVERWRITING:
        only_written = [*only_written, args[0]]
    elif name == "_foreach_copy_":
        only_written = args[0]
    written = args[0] if not results and name.startswith("_foreach_") else results
    unread = {id(one) for one in only_written}
    read = {id(one): one for one in call.tensors if id(one) not in unread}
    total = sum(map(stored_bytes, read.values())) + sum(map(stored_bytes, written))
    return total + stored_bytes(results[0]) - stored_bytes(args[0]) if name in GATHERING else total


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
