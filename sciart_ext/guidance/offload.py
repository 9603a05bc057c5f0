"""What a gradient needs later, kept in main memory until then."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def in_main_memory(weights: Iterable[Tensor]) -> saved_tensors_hooks:
    """While it lasts what autograd saves is copied from its device, and back when it is needed; weights, which stay
    there anyway, and what is in main memory already are not.

    On CUDA nothing waits for the copies (`torch.autograd.graph.save_on_cpu` waits for each): torch makes them in pinned
    memory where it is not to wait, in the order of the stream on which the gradient follows.
    """
    staying = {weight.data_ptr() for weight in weights}

    def pack(tensor: Tensor) -> Tensor | tuple[Tensor, torch.device, bool]:
        if tensor.device.type == "cpu" or tensor.data_ptr() in staying:
            return tensor.detach()
        return tensor.to("cpu", non_blocking=tensor.is_cuda), tensor.device, tensor.is_cuda

    def unpack(packed: Tensor | tuple[Tensor, torch.device, bool]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        kept, device, is_pinned = packed
        return kept.to(device, non_blocking=is_pinned)

    return saved_tensors_hooks(pack, unpack)
