"""The device type "gpu" and its module `torch.gpu`, as torch asks of a kind of device made in Python."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.utils import backend_registration

from . import autocast
from .tensor import Elsewhere, entered

NAME = "gpu"
SUPPORTED = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def set_up() -> None:
    """Makes the device type known, once in a process: torch cannot forget it. It is available within contexts only."""
    if torch._C._get_privateuse1_backend_name() == NAME:
        if not isinstance(torch.gpu, Backend):
            raise RuntimeError("the pretended GPU is imported under two names")
        return

    class Hook(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return Elsewhere.gpu is not None

        def has_primary_context(self, index: int) -> bool:
            return True

        def is_built(self) -> bool:
            return True

    backend_registration._setup_privateuseone_for_python_backend(NAME, Backend(), hook=Hook())
    autocast.register()


class Backend:
    """`torch.gpu`: of `torch.cuda`'s functions those that programs ask a device for."""

    def is_available(self) -> bool:
        return Elsewhere.gpu is not None

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """Its random numbers are the CPU's."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def get_device_properties(self, device: object = None) -> SimpleNamespace:
        return SimpleNamespace(name="pretended", total_memory=entered().memory.total)

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """Bytes (free, in total)."""
        memory = entered().memory
        return max(memory.limit - memory.live, 0), memory.total

    def memory_allocated(self, device: object = None) -> int:
        return entered().memory.live

    def max_memory_allocated(self, device: object = None) -> int:
        return entered().memory.peak

    def reset_peak_memory_stats(self, device: object = None) -> None:
        memory = entered().memory
        memory.peak = memory.live

    def empty_cache(self) -> None:
        """It has none."""

    def synchronize(self, device: object = None) -> None:
        if self.is_available():  # torch's profiler asks for it outside of contexts too
            entered().waited("synchronize")
