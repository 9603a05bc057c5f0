"""The context within which the pretended GPU is there: runs its operators on the CPU, and counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import nn
from torch.utils import _python_dispatch  # torch 2.1 has not all of it
from torch.utils._python_dispatch import TorchDispatchMode

from . import backend, costs, pinned
from .call import Call, goes_to
from .counts import Counts, engine_line
from .functions import Functions
from .leaves import tensors_in, with_tensors
from .memory import Memory
from .operators import COPIES
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
        if Elsewhere in types or goes_to(kwargs) == backend.NAME:
            return self.run(func, args, kwargs)
        if kwargs.get("pin_memory"):
            return pinned.pin(func(*args, **{**kwargs, "pin_memory": False}))
        return func(*args, **kwargs)

    def run(self, func, args: tuple, kwargs: dict) -> object:
        """The operator on the CPU tensors that hold the numbers, and its results where they belong."""
        call = Call.of(func, args, kwargs)
        call.refuse_mixed()
        options = {name: with_tensors(value, _here) for name, value in kwargs.items()}
        if call.to is not None:
            options["device"] = "cpu"
        if options.get("pin_memory"):
            options["pin_memory"] = False
        found = func(*[with_tensors(value, _here) for value in args], **options)
        if call.operator.is_view:
            return _python_dispatch.return_and_correct_aliasing(func, args, kwargs, with_tensors(found, Elsewhere))
        results = tensors_in((found,))
        self._count(call, results)
        if call.stays_here:
            if call.operator.name == "_to_copy" and kwargs.get("non_blocking"):  # torch copies into pinned memory then
                pinned.pin(found)
            return found
        if not call.operator.writes:
            for result in results:
                self.memory.allocated(result.untyped_storage())
            return with_tensors(found, Elsewhere)
        if isinstance(args[0], torch.Tensor) and not isinstance(args[0], Elsewhere):
            return args[0]  # the CPU's, copied into
        return _python_dispatch.return_and_correct_aliasing(func, args, kwargs, with_tensors(found, Elsewhere))

    def waited(self, name: str) -> None:
        """The host waits for the device."""
        line = engine_line()
        for counts in self._counting:
            counts.waits[name, line] += 1

    def _count(self, call: Call, results: list[torch.Tensor]) -> None:
        name, crossed = call.operator.name, False
        for source, waits in costs.crossings(call, results):
            crossed = True
            for counts in self._counting:
                counts.launches += 1
                counts.crossed += costs.stored_bytes(source)
            if waits:
                self.waited(name)
        if costs.waits(call):
            self.waited(name)
        if not call.operator.runs or (crossed and name in COPIES) or not (results or call.operator.writes):
            return
        kernels, launches = costs.kernels_and_launches(call, results)
        moved_bytes = costs.bytes_moved(call, results)
        for counts in self._counting:
            counts.kernels[name] += kernels
            counts.launches += launches
            counts.bytes += moved_bytes


def moved(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the pretended GPU."""
    return module.to(backend.NAME)


def _here(tensor: torch.Tensor) -> torch.Tensor:
    """The CPU tensor that holds the numbers."""
    return tensor.here if isinstance(tensor, Elsewhere) else tensor
