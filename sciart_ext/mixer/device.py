"""The device where a model is computed: whether it is a GPU, and how much memory it has in all."""

from __future__ import annotations

import torch

UNKNOWN_MEMORY = 8 * 2**30
"""what a GPU is taken to have that does not tell"""


def is_gpu(device: torch.device) -> bool:
    """Whether what is computed there is launched, and memory there is not main memory."""
    return device.type != "cpu"


def total_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory, whatever of it is free at the moment. A device without index is the current one."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() if hasattr(torch.mps, "recommended_max_memory") else UNKNOWN_MEMORY
    ask = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    # torch before 2.5 takes no device here that has no index; None is the current one in all of them
    return UNKNOWN_MEMORY if ask is None else ask(device.index)[1]
