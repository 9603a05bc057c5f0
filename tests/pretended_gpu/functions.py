"""Functions of torch that work below its dispatcher, as they are where there is a pretended GPU."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

from . import pinned
from .backend import NAME
from .tensor import Elsewhere


def _from_data(plain):
    """`torch.tensor` or `torch.as_tensor`: for the device a CPU tensor, then copied, as torch does for CUDA."""
    def make(data, *, device: object = None, pin_memory: bool = False, **options) -> torch.Tensor:
        if isinstance(data, Elsewhere):
            made = data.detach().to(data.device if device is None else device, options.get("dtype") or data.dtype)
        elif device is not None and torch.device(device).type == NAME:
            made = plain(data, device="cpu", **options).to(device)
        else:
            made = plain(data, device=device, **options)
        return pinned.pin(made) if pin_memory else made
    return make


STAND_INS = {torch.tensor: _from_data(torch.tensor), torch.as_tensor: _from_data(torch.as_tensor),
             torch.Tensor.is_pinned: pinned.is_pinned, torch.Tensor.pin_memory: pinned.pin_memory}


class Functions(TorchFunctionMode):
    """Within it those stand for torch's own."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return STAND_INS.get(func, func)(*args, **(kwargs or {}))
