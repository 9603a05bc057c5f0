"""Products with a stacked factor, x·wᵀ, by the quickest public route of torch on each device.

On a CPU torch hands float32 matrix products to its BLAS and convolutions to oneDNN. With MKL on an AMD processor
the latter does large products in half to two thirds of the time; small ones lose in its preparation what they gain.
A linear layer is a convolution with a 1 × 1 kernel over channels that lie together in memory: nothing is copied.
"""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

# Multiplications from which convolving is quicker (2 CPU cores, the layers of SD 1.5, three LoRAs of rank 32).
CONVOLVED_WORK = 30_000_000


def times(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x·wᵀ: x (…, n), w (m, n) → (…, m)."""
    if not convolves(x, w):
        return x.mm(w.t()) if x.dim() == 2 else F.linear(x, w)  # the same; F.linear takes longer to find out
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    return F.conv2d(pixels, w[:, :, None, None]).permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(w))


def add_times(y: torch.Tensor, x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Writes y + x·wᵀ into `out` (which may be y): y, out (p, m), x (p, n), w (m, n). Without gradients."""
    if convolves(x, w):
        return torch.add(y, times(x, w), out=out)
    return y.addmm_(x, w.t()) if out is y else torch.addmm(y, x, w.t(), out=out)


def unrounded(device: torch.device) -> AbstractContextManager:
    """Products are not rounded to half, as a host's autocast would: on every type of device that has one in this torch.

    TF32 is left as the host has it, which computes its own LoRAs so: like half precision it rounds factors to 10 bits,
    and so a delta by less than half precision rounds the larger weight it is added to, or TF32 itself in each call of
    the layer. Half-precision values pass through it unrounded.
    """
    return torch.autocast(device.type, enabled=False) if _has_autocast(device.type) else nullcontext()


@functools.cache
def _has_autocast(device_type: str) -> bool:
    """Found by trying, once: torch 2.1 cannot be asked, and tells of a device without by errors of several types."""
    try:
        with torch.autocast(device_type, enabled=False):
            return True
    except Exception:  # a backend's own module may raise anything; what it cannot enter, it cannot have switched on
        return False


def convolves(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether a convolution is the quicker product of x with w."""
    return x.dtype == w.dtype and x.numel() >= convolved_from(x, len(w))


def convolved_from(x: torch.Tensor, rows: int) -> float:
    """The number of entries from which a convolution is the quicker product with a w of so many rows, for tensors of
    the type of x and where it is."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return math.inf
    return CONVOLVED_WORK / rows
