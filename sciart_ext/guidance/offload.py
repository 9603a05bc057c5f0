"""What a gradient needs later, kept in main memory until then."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def in_main_memory(weights: Iterable[Tensor]) -> saved_tensors_hooks:
    """While it lasts what autograd saves is copied from its device, and back when it is needed; weights, which stay
    there anyway, and what is in main memory already are not.

    On CUDA the copies are pinned and nothing waits for them (`torch.autograd.graph.save_on_cpu` waits for each): they
    are in the order of the stream on which the gradient follows.
    """
    staying = {weight.data_ptr() for weight in weights}

    def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        if tensor.device.type == "cpu" or tensor.data_ptr() in staying:
            return tensor.detach()
        pinned = tensor.device.type == "cuda"
        kept = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
        return tensor.device, kept.copy_(tensor, non_blocking=pinned)

    def unpack(packed: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, kept = packed
        return kept.to(device, non_blocking=device.type == "cuda")

    return saved_tensors_hooks(pack, unpack)
