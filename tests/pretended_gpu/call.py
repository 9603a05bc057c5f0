"""One call of an operator that concerns the device."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .leaves import tensors_in
from .operators import COPIES, INDEXED, Operator, known
from .tensor import Elsewhere


class Call(NamedTuple):
    """What is called with what: with tensors of the device among the arguments, or for a result that is to be there."""

    operator: Operator
    args: tuple
    kwargs: dict
    tensors: list[torch.Tensor]
    """among the arguments"""
    to: str | None
    """the type of the device that it is told to make its result on"""

    @classmethod
    def of(cls, func, args: tuple, kwargs: dict) -> Call:
        tensors = tensors_in(args)
        if kwargs:
            tensors += tensors_in(kwargs.values())
        return cls(known(func), args, kwargs, tensors, goes_to(kwargs))

    def argument(self, name: str) -> object:
        return self.operator.argument(name, self.args, self.kwargs)

    @property
    def stays_here(self) -> bool:
        """Whether its result is on the CPU."""
        if self.to is not None:
            return self.to == "cpu"
        return not any(isinstance(tensor, Elsewhere) for tensor in self.tensors)

    def refuse_mixed(self) -> None:
        """Raises RuntimeError for tensors of two devices that CUDA's operator would refuse."""
        name, tensors = self.operator.name, self.tensors
        if name in COPIES:
            return
        if name in INDEXED:
            if not isinstance(self.args[0], Elsewhere):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            tensors = tensors_in((self.args[0], self.args[2:]))
        here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
        if here and len(here) < len(tensors) and any(tensor.dim() for tensor in here):
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, gpu:0 "
                               f"and cpu! (when running {name})")


def goes_to(kwargs: dict) -> str | None:
    """The type of the device among an operator's arguments."""
    device = kwargs.get("device")
    return None if device is None else torch.device(device).type
