"""A GPU that a CPU-only torch pretends: right values, tensors that are elsewhere, and what a real one would cost.

    with PretendedGpu(total_memory=8 * 2**30) as gpu:
        unet = moved(unet)
        x = torch.randn(2, 4, 64, 64).to("gpu")
        with gpu.counting() as counts:
            unet(x, ...)
    counts.kernels.total(), counts.launches, counts.waits, counts.bytes, gpu.memory.peak

Older versions of torch lack device types made in Python (`SUPPORTED`): tests carry `marks.needs_pretended_gpu`.
"""

from .backend import SUPPORTED
from .counts import Counts
from .device import PretendedGpu, moved

__all__ = ["SUPPORTED", "Counts", "PretendedGpu", "moved"]
