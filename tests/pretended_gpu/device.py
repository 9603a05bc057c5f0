"""The context within which the pretended GPU is there: runs its operators on the CPU, and counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import nn
from torch.utils import _python_dispatch  # torch 2.1 has not all of it
from torch.utils._python_dispatch import TorchDispatchMode

from . import backend, pinned
from .counts import Counts, engine_line, foreach_launches, stored_bytes
from .functions import Functions
from .leaves import tensors_in, with_tensors
from .memory import Memory
from .operators import COPIES, GATHERING, INDEXED, NO_KERNEL, OVERWRITING, WAITING, argument, is_view, name_of, writes
from .tensor import Elsewhere


class PretendedGpu(TorchDispatchMode):
    """Within it there is the device "gpu".

    Its operators hold what CUDA's hold: tensors of two devices do not mix, but for the CPU's numbers without dimension,
    copies and indices. counts: since it was entered; memory: of it. total_memory, limit: bytes, as `Memory` has them.
    """

    def __init__(self, total_memory: int = 8 * 2**30, limit: int | None = None):
        super().__init__()
        self.memory = Memory(total_memory, limit)
        self.counts = Counts()
        self._counting = [self.counts]
        self._entered: ExitStack | None = None

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Counts of what runs in this context alone."""
        counts = Counts()
        self._counting.append(counts)
        try:
            yield counts
        finally:
            self._counting.remove(counts)

    def __enter__(self) -> PretendedGpu:
        if Elsewhere.gpu is not None:
            raise RuntimeError("one pretended GPU at a time")
        backend.set_up()
        with ExitStack() as stack:
            stack.enter_context(Functions())
            stack.enter_context(mock.patch.object(Elsewhere, "gpu", self))
            # gradients in this thread: torch starts those of devices at its first gradient, perhaps before set_up
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            super().__enter__()
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
        self._entered.close()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and keeping the compiler out of it takes time at every operator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if Elsewhere in types or _goes_to(kwargs) == backend.NAME:
            return self.run(func, args, kwargs)
        if kwargs.get("pin_memory"):
            return pinned.pin(func(*args, **{**kwargs, "pin_memory": False}))
        return func(*args, **kwargs)

    def run(self, func, args: tuple, kwargs: dict) -> object:
        """The operator on the CPU tensors that hold the numbers, and its results where they belong."""
        name, to = name_of(func), _goes_to(kwargs)
        tensors = tensors_in(args) + tensors_in(kwargs.values())
        _refuse_mixed(name, args, tensors)
        options = {key: with_tensors(value, _here) for key, value in kwargs.items()}
        if to is not None:
            options["device"] = "cpu"
        if options.get("pin_memory"):
            options["pin_memory"] = False
        found = func(*with_tensors(args, _here), **options)
        results = tensors_in([found])
        self._count(func, name, args, kwargs, tensors, results)
        if to == "cpu" or (to is None and not any(isinstance(one, Elsewhere) for one in tensors)):
            if name == "_to_copy" and kwargs.get("non_blocking"):  # torch copies into pinned memory then
                pinned.pin(found)
            return found
        if writes(func) and isinstance(args[0], torch.Tensor) and not isinstance(args[0], Elsewhere):
            return args[0]  # the CPU's, copied into
        for result in results:
            self.memory.allocated(result.untyped_storage())
        found = with_tensors(found, Elsewhere)
        if not (is_view(func) or writes(func)):
            return found
        return _python_dispatch.return_and_correct_aliasing(func, args, kwargs, found)

    def waited(self, name: str) -> None:
        """The host waits for the device."""
        line = engine_line()
        for counts in self._counting:
            counts.waits[name, line] += 1

    def _count(self, func, name: str, args: tuple, kwargs: dict, tensors: list[torch.Tensor],
               results: list[torch.Tensor]) -> None:
        if name in COPIES:
            crossing = list(_crossing(func, name, args, kwargs, results))
            for source, _, waits in crossing:
                self._crossed(stored_bytes(source))
                if waits:
                    self.waited(name)
            if crossing:
                return
        if name in INDEXED:
            for index in args[1]:
                if index is not None and not isinstance(index, Elsewhere):
                    self._crossed(stored_bytes(index))
                    self.waited(name)
                elif index is not None and index.dtype in (torch.bool, torch.uint8):
                    self.waited(name)  # how many are true decides the result's size
        if name in WAITING or (name == "repeat_interleave" and argument(func, "output_size", args, kwargs) is None):
            self.waited(name)
        if name in NO_KERNEL or is_view(func) or not (results or writes(func)):
            return
        kernels, launches = 1, 1
        if name.startswith("_foreach_"):
            kernels, launches = _foreach(args, results)
        moved_bytes = _bytes(name, args, kwargs, tensors, results)
        for counts in self._counting:
            counts.kernels[name] += kernels
            counts.launches += launches
            counts.bytes += moved_bytes

    def _crossed(self, size: int) -> None:
        for counts in self._counting:
            counts.launches += 1
            counts.crossed += size


def moved(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the pretended GPU."""
    return module.to(backend.NAME)


def _here(tensor: torch.Tensor) -> torch.Tensor:
    """The CPU tensor that holds the numbers."""
    return tensor.here if isinstance(tensor, Elsewhere) else tensor


def _goes_to(kwargs: dict) -> str | None:
    """The type of the device that the operator is told to make its result on."""
    return None if kwargs.get("device") is None else torch.device(kwargs["device"]).type


def _refuse_mixed(name: str, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Raises RuntimeError for tensors of two devices that CUDA's operator would refuse."""
    if name in COPIES:
        return
    if name in INDEXED:
        if not isinstance(args[0], Elsewhere):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        tensors = tensors_in((args[0], args[2:]))
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    if there and any(tensor.dim() for tensor in tensors if not isinstance(tensor, Elsewhere)):
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, gpu:0 and "
                           f"cpu! (when running {name})")


def _crossing(func, name: str, args: tuple, kwargs: dict, results: list[torch.Tensor],
              ) -> Iterator[tuple[torch.Tensor, torch.Tensor, bool]]:
    """(source, target, whether the host waits for it) of each copy between devices."""
    free = bool(argument(func, "non_blocking", args, kwargs))
    if name == "_to_copy":
        source, to = args[0], _goes_to(kwargs)
        leaves = isinstance(source, Elsewhere) and to == "cpu"
        if leaves or (to == backend.NAME and not isinstance(source, Elsewhere)):
            yield source, results[0], not free if leaves else not (free and _sent_as_it_is(source, results[0]))
        return
    pairs = zip(args[0], args[1]) if name == "_foreach_copy_" else [(args[0], args[1])]
    for target, source in pairs:
        if isinstance(source, Elsewhere) and not isinstance(target, Elsewhere):
            yield source, target, not (free and pinned.is_pinned(target) and target.is_contiguous())
        elif isinstance(target, Elsewhere) and not isinstance(source, Elsewhere):
            yield source, target, not (free and _sent_as_it_is(source, target))


def _sent_as_it_is(source: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether a CPU tensor is sent from its own pinned memory, not from a converted copy, which is not pinned."""
    return pinned.is_pinned(source) and source.dtype == target.dtype and source.is_contiguous()


def _foreach(args: tuple, results: list[torch.Tensor]) -> tuple[int, int]:
    """(kernels, launches) of a `_foreach_` operator."""
    lists = [one for one in args if isinstance(one, (list, tuple)) and one and isinstance(one[0], torch.Tensor)]
    launches = foreach_launches([*lists, results] if results else lists)
    return (len(lists[0]), len(lists[0])) if launches is None else (1, launches)


def _bytes(name: str, args: tuple, kwargs: dict, tensors: list[torch.Tensor], results: list[torch.Tensor]) -> int:
    """Read and written by a kernel."""
    only_written = tensors_in([kwargs.get("out")])
    written = results
    if name.startswith("_foreach_") and not results:
        written = args[0]
    if name in OVERWRITING:
        only_written += [args[0]]
    if name == "_foreach_copy_":
        only_written += args[0]
    unread = {id(one) for one in only_written}
    read = {id(one): one for one in tensors if id(one) not in unread}
    total = sum(map(stored_bytes, read.values())) + sum(map(stored_bytes, written))
    if name in GATHERING:
        total += stored_bytes(results[0]) - stored_bytes(args[0])
    return total
