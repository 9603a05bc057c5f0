"""Pinned memory, which a CPU-only torch does not have: pretended by a mark on a CPU tensor's storage."""

from __future__ import annotations

import torch


def pin(tensor: torch.Tensor) -> torch.Tensor:
    """Marks the tensor's memory as pinned."""
    tensor.untyped_storage().pretended_pinned = True
    return tensor


def is_pinned(tensor: torch.Tensor, device: object = None) -> bool:
    """Stands for `Tensor.is_pinned`; never true of a tensor that is on the device."""
    return tensor.device.type == "cpu" and getattr(tensor.untyped_storage(), "pretended_pinned", False)


def pin_memory(tensor: torch.Tensor, device: object = None) -> torch.Tensor:
    """Stands for `Tensor.pin_memory`: a pinned copy, or the tensor itself where it is pinned already."""
    if tensor.device.type != "cpu":
        raise RuntimeError(f"cannot pin '{tensor.type()}' only dense CPU tensors can be pinned")
    return tensor if is_pinned(tensor) else pin(tensor.clone())
