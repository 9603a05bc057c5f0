"""Which entries of a delta are kept, the largest or random ones; and remembering that in one bit each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def largest(delta: Tensor, density: float) -> Tensor:
    """The share `density` of the entries that is largest in magnitude, at least one, and what is as large as the least
    of them: bool, in the delta's shape.

    TIES' trim (arXiv 2306.01708, section 3), layer by layer as in PEFT and mergekit, where the paper trims the whole
    model's entries together. NumPy's partition finds the limit 15 times as fast as torch's topk or kthvalue.
    """
    import numpy as np

    sizes = delta.abs()
    least = delta.numel() - max(int(density * delta.numel()), 1)
    return sizes >= float(np.partition(sizes.flatten().cpu().numpy(), least)[least])


def at_random(shape: Sequence[int], density: float, seed: int, layer: str, lora: str) -> Tensor:
    """DARE's drop (arXiv 2311.03099, section 3.2): every entry is kept with probability `density`; bool, on the CPU.

    It depends on seed, layer and LoRA alone: not on the order of either, nor on the device.
    """
    digest = hashlib.sha256(f"{seed}\n{layer}\n{lora}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(tuple(shape), generator=generator) < density


def pack(mask: Tensor) -> Tensor:
    """Eight entries in a byte, in main memory."""
    import numpy as np

    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy(), bitorder="little"))


def unpack(packed: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
    """What was packed: bool, in this shape, on this device."""
    import numpy as np

    bits = np.unpackbits(packed.numpy(), count=math.prod(shape), bitorder="little")
    return torch.from_numpy(bits).view(torch.bool).view(tuple(shape)).to(device)
