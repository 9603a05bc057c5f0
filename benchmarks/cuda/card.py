"""A CUDA device that things are measured on: how long they take, how much of its memory they need, and what it is."""

from __future__ import annotations

import gc
import platform
import shutil
import subprocess
import time
from collections.abc import Callable

import torch

from .. import record


class Card:
    """The current CUDA device."""

    def __init__(self):
        self.device = torch.device("cuda", torch.cuda.current_device())

    def seconds(self, run: Callable[[], object]) -> float:
        """Of what `run` has the device do, from when it is idle to when it is idle again."""
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize(self.device)
        return began.elapsed_time(ended) / 1000

    def host_seconds(self, run: Callable[[], object]) -> float:
        """Of `run` and all that it has the device do, as the host sees it: what the device waits for included."""
        torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        run()
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def peak(self, run: Callable[[], object]) -> int:
        """The most bytes of tensors that are on the device while it runs."""
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)

    def held(self) -> int:
        """`held_bytes` of it."""
        return held_bytes(self.device)

    def facts(self) -> dict:
        """Which card, and the versions of what drives it."""
        properties = torch.cuda.get_device_properties(self.device)
        return {**record.machine("cuda"), "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
                "compute_capability": f"{properties.major}.{properties.minor}", "driver": driver(),
                "cuda": torch.version.cuda, "hip": torch.version.hip, "cudnn": torch.backends.cudnn.version()}


def held_bytes(device: torch.device) -> int:
    """Bytes of the tensors on a device that something in Python holds: unlike an allocator's figure, without the
    workspaces of CUDA's libraries."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and one.device == device and one.layout is torch.strided:
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__}


def driver() -> str:
    """The version of NVIDIA's driver, as its own program tells it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    told = subprocess.run([program, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True,
                          text=True, check=False)
    return told.stdout.partition("\n")[0].strip() or "unknown"
