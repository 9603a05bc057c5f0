"""When memory runs out: telling it from other errors, and how many rows would have fitted."""

from __future__ import annotations

import errno
import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TypeVar

import torch

from .errors import SciArtError

S, T = TypeVar("S"), TypeVar("T")

# What errors without a type of their own say, in lower case.
_SIGNS = (
    "out of memory",  # the runtimes and drivers of CUDA (of pinned memory too) and HIP; MPS, XPU, Triton
    "alloc_failed", "allocation_failed",  # cuBLAS, cuDNN 8 and 9, cuSOLVER, cuSPARSE, cuFFT, cuRAND, and HIP's own
    "outofmemory", "out_of_memory", "errormemoryallocation",  # by the names of CUDA, HIP and Windows (DirectML)
    "rocblas_status_memory_error", "miopenstatusallocfailed",
    "out_of_device_memory", "out_of_host_memory", "out_of_resources", "allocation_failure",  # SYCL and Level Zero
    "out of device memory", "not allocate memory block",  # Intel's extension
    "not enough gpu video memory",  # DirectML
    "invalid buffer size", "failed to allocate",  # Metal: more than one buffer, or one heap, can hold
    "devmem allocation failed",  # HPU
    "can't allocate memory", "cannot allocate memory", "not enough memory",  # the CPU's allocator, mapping; Windows
    "bad_alloc", "bad allocation", "paging file is too small",
)
# What is told where it ran out, though of another fault it might be told too.
_HIDDEN_SIGNS = (
    # torch's allocator asks NVML who else is on the device when an allocation has failed
    "nvml_success == r internal assert failed",
    # every algorithm that cuDNN offers has failed, which they do for want of a workspace
    "unable to find a valid cudnn algorithm", "unable to find an engine to execute this computation",
    # A library's handle takes memory of the device. It is made late, by a thread's first product; on a device that has
    # already worked, as it has when prompts are encoded, there is hardly another reason to fail, whatever it is called.
    "cublascreate", "cublasltcreate", "hipblascreate", "cusolverdncreate", "hipsolverdncreate", "cusparsecreate",
    "cudnncreate", "cudnn_status_not_initialized",
)
_WINDOWS = (8, 14, 1455)
"""system errors: ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY, ERROR_COMMITMENT_LIMIT"""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of a device, pinned memory or main memory ran out, in whatever form it is told."""
    return _is_of_memory(error) or (isinstance(error, RuntimeError) and any(sign in str(error).lower()
                                                                            for sign in (*_SIGNS, *_HIDDEN_SIGNS)))


def unless_too_large(run: Callable[[], T], refusal: Callable[[], SciArtError | None]) -> T:
    """What `run` returns; where memory runs out in it, what it held is freed, and then the refusal raised, or, where
    that is None, the error itself. An error that does not itself speak of memory is told in the refusal.
    """
    try:
        return run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        let_go(error)
        refused = refusal()
        if refused is None:
            raise
        if not _is_of_memory(error) and any(sign in str(error).lower() for sign in _HIDDEN_SIGNS):
            said = str(error).strip().partition("\n")[0]
            refused = SciArtError(refused.field, f"{refused.message} ({said})")
        raise refused from error


def in_parts_that_fit(items: Sequence[S], at_once: int, make: Callable[[Sequence[S]], T]) -> Iterator[T]:
    """make(part) for so many of the items at a time, in their order; where a part does not fit in memory, what it held
    is freed, and it and what follows is made by halves. What else `make` raises ends the work."""
    while items:
        part = items[:at_once]
        try:
            made = make(part)
        except Exception as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
            let_go(error)
            at_once = len(part) // 2
        else:
            yield made
            items = items[len(part):]


def _is_of_memory(error: BaseException) -> bool:
    """Whether its type, or the system's number, says so."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in _WINDOWS
    # torch.cuda.OutOfMemoryError, which newer ones call torch's; other devices' packages have their own of this name
    return isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)


def let_go(error: BaseException) -> None:
    """Frees what an error that was caught, and those before it, hold in the frames that they went through."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]
    free()


def rows_that_fit(call: Callable[[int], object], most: int) -> int:
    """The most rows, below `most`, for which `call` does not run out of memory; by bisection, 0 if one is too many."""
    fitting, too_many = 0, most
    while too_many - fitting > 1:
        rows = (fitting + too_many) // 2
        try:
            call(rows)
            fitting = rows
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            too_many = rows
        free()
    return fitting


def too_many_rows(rows: int, fitting: int, images: int, each: int, ways_out: Sequence[tuple[int, str]],
                  field: str = "compose", beside: str = "") -> SciArtError:
    """The refusal of so many rows in one call, of which `fitting` would fit.

    each: rows at once of one of the pictures, where it is evaluated whole. ways_out: (rows at once that they need,
    what to do instead), of which those that fit are told. beside: what else is in memory.
    """
    smaller = [f"a batch size of {min(fitting // each, images - 1)}"] if images > 1 and fitting >= each else []
    others = [way for needed, way in ways_out if needed <= fitting]
    at_once = "1 row does" if rows == 1 else f"{rows} rows at once do"
    return SciArtError(field, f"out of memory: {at_once} not fit{beside}, {fitting} would; accepted: "
                              f"{', '.join([*smaller, *others, 'a smaller picture'])}")


def free() -> None:
    """Gives back what nothing holds any more, on every device that is there."""
    gc.collect()
    for device in _devices():
        if hasattr(device, "empty_cache"):
            device.empty_cache()


def _devices() -> Iterator[ModuleType]:
    """torch's modules of the devices that are there."""
    for name in ("cuda", "xpu", torch._C._get_privateuse1_backend_name()):
        device = getattr(torch, name, None)
        if device is not None and (not hasattr(device, "is_available") or device.is_available()):
            yield device
    if torch.backends.mps.is_available():
        yield torch.mps
