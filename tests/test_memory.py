"""When memory runs out: it is recognised, what was held is let go, and what fits is found."""

from __future__ import annotations

import errno
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.memory import (
    free,
    in_parts_that_fit,
    is_out_of_memory,
    let_go,
    rows_that_fit,
    too_many_rows,
    unless_too_large,
)


def more_than_there_is():
    return torch.empty(1 << 55, dtype=torch.uint8)


def test_what_torchs_allocator_raises_is_recognised_and_other_errors_are_not():
    with pytest.raises(RuntimeError) as caught:
        more_than_there_is()
    assert is_out_of_memory(caught.value) and is_out_of_memory(torch.cuda.OutOfMemoryError("out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


FORMS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call",  # pinned too
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "FIND was unable to find an engine to execute this computation",
    "GET was unable to find an engine to execute this computation",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
    "CUDA error: insufficient resources when calling `cusparseCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1154, please report a bug',
    "Triton Error [CUDA]: out of memory",
    "HIP out of memory. Tried to allocate 20.00 MiB", "HIP error: out of memory", "HIP error: hipErrorOutOfMemory",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "rocblas_status_memory_error", "miopenStatusAllocFailed",
    "MPS backend out of memory (MPS allocated: 4.06 GB, other allocations: 2.73 GB, max allowed: 6.77 GB).",
    "Invalid buffer size: 8.21 GB", "Failed to allocate private MTLBuffer for size 4294967296",
    "XPU out of memory. Tried to allocate 1.00 GiB",
    "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)",
    "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "Allocation is out of device memory on current platform.",
    "Could not allocate tensor with 4915840 bytes. There is not enough GPU video memory available!",
    "FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::4294967296",
    "[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
    "[enforce fail at alloc_cpu.cpp:72] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    "std::bad_alloc", "bad allocation", "unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)",
]


@pytest.mark.parametrize("said", FORMS)
def test_every_form_in_which_memory_is_told_to_have_run_out_is_recognised(said):
    assert is_out_of_memory(RuntimeError(said))


@pytest.mark.parametrize("error", [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`"),
    RuntimeError("CUDA error: too many resources requested for launch"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if the input is not contiguous."),
    RuntimeError("Expected all tensors to be on the same device, but found at least two devices"),
    SciArtError("compose", "out of memory: 3 rows at once do not fit"), KeyError("out of memory"),
    OSError(errno.ENOENT, "out of memory"),
])
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_pythons_numpys_and_the_systems_own_errors_are_recognised():
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 55, np.uint8)
    assert is_out_of_memory(caught.value)
    paging = OSError("The paging file is too small for this operation to complete")
    paging.winerror = 1455
    assert is_out_of_memory(paging)


@pytest.mark.parametrize("make", [lambda: torch.OutOfMemoryError("any words"),
                                  lambda: torch.AcceleratorError("CUDA error: out of memory")])
def test_the_types_of_newer_torch_are_recognised(make):
    try:
        error = make()
    except AttributeError as missing:
        pytest.skip(f"torch {torch.__version__}: {missing}")
    assert is_out_of_memory(error)


def test_memory_is_given_back_by_every_device_that_is_there(monkeypatch):
    """Of a device that torch does not know: a backend's package puts its module into torch."""
    given_back = []
    module = SimpleNamespace(is_available=lambda: True, empty_cache=lambda: given_back.append("all"))
    monkeypatch.setattr(torch, torch._C._get_privateuse1_backend_name(), module, raising=False)
    free()
    assert given_back == ["all"]


def test_errors_before_the_one_that_is_caught_let_go_too():
    tensor = torch.zeros(3)
    held = weakref.ref(tensor)

    def holding(kept):
        raise ValueError("first")

    def run(kept):
        try:
            holding(kept)
        except ValueError:
            more_than_there_is()

    caught = None
    try:
        run(tensor)
    except RuntimeError as error:
        caught = error
    del tensor
    assert held() is not None
    let_go(caught)
    assert held() is None


def test_what_hides_that_memory_ran_out_is_told_in_the_refusal():
    said = "GET was unable to find an engine to execute this computation"

    def run():
        raise RuntimeError(said)

    with pytest.raises(SciArtError, match=f"^compose: too large \\({said}\\)$") as refused:
        unless_too_large(run, lambda: SciArtError("compose", "too large"))
    assert str(refused.value.__cause__) == said


def test_what_was_held_is_let_go_before_the_refusal_is_made():
    held = []

    def run():
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        more_than_there_is()

    def refusal():
        assert held[0]() is None
        return SciArtError("compose", "too large")

    with pytest.raises(SciArtError, match="compose: too large"):
        unless_too_large(run, refusal)


def test_without_a_refusal_the_error_itself_is_raised_and_others_always_are():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        unless_too_large(more_than_there_is, lambda: None)
    with pytest.raises(KeyError):
        unless_too_large({}.popitem, lambda: SciArtError("compose", "never said"))
    assert unless_too_large(lambda: 7, lambda: None) == 7


@pytest.mark.parametrize("room", range(9))
def test_the_most_rows_that_fit_are_found(room):
    calls = []

    def call(rows):
        calls.append(rows)
        return torch.empty(rows) if rows <= room else more_than_there_is()

    assert rows_that_fit(call, 10) == room
    assert len(calls) <= 4


def test_an_error_that_is_not_of_memory_ends_the_search():
    with pytest.raises(ZeroDivisionError):
        rows_that_fit(lambda rows: rows // 0, 10)


@pytest.mark.parametrize(("fitting", "accepted"), [
    (19, "a batch size of 3, merge, a smaller picture"),
    (10, "a batch size of 2, merge, a smaller picture"),
    (4, "a smaller picture"),
])
def test_only_what_fits_is_advised(fitting, accepted):
    assert str(too_many_rows(20, fitting, images=4, each=5, ways_out=[(8, "merge")])) == (
        f"compose: out of memory: 20 rows at once do not fit, {fitting} would; accepted: {accepted}")


def test_what_does_not_fit_at_once_is_made_by_halves_in_its_order():
    tried = []

    def make(part):
        tried.append(list(part))
        return more_than_there_is() if len(part) > 3 else sum(part)

    assert list(in_parts_that_fit(range(8), 8, make)) == [1, 5, 9, 13]
    assert tried == [list(range(8)), [0, 1, 2, 3], [0, 1], [2, 3], [4, 5], [6, 7]]
    assert list(in_parts_that_fit([], 8, make)) == []


def test_one_that_does_not_fit_and_other_errors_end_it():
    with pytest.raises(RuntimeError, match="memory"):
        list(in_parts_that_fit([1, 2], 2, lambda part: more_than_there_is()))
    with pytest.raises(ZeroDivisionError):
        list(in_parts_that_fit([1, 2], 2, lambda part: 1 / 0))
