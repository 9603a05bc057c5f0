"""A tensor of the pretended GPU: it says that it is elsewhere, and holds its numbers in a CPU tensor."""

from __future__ import annotations

import torch
from torch import nn


class Elsewhere(torch.Tensor):
    """`here` holds the numbers. Its operators are those of the `PretendedGpu` that is entered (`Elsewhere.gpu`)."""

    gpu = None
    __torch_function__ = torch._C._disabled_torch_function_impl
    is_cuda = property(lambda self: True)

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(cls, here.shape, strides=here.stride(), dtype=here.dtype,
                                                   device="gpu:0", storage_offset=here.storage_offset())
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return entered().run(func, args, kwargs or {})

    # What torch answers below its dispatcher.

    def data_ptr(self) -> int:
        if self.here.is_meta:  # no memory of its own: another number for each storage, and for each place in it
            return self.here.untyped_storage()._cdata + self.here.storage_offset() * self.here.element_size()
        return self.here.data_ptr()

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert gpu:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def new_tensor(self, data: object, *, dtype: torch.dtype | None = None, device: object = None,
                   **options) -> torch.Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, **options)

    def __getitem__(self, index: object) -> torch.Tensor:
        return super().__getitem__(_brought(index))

    def __setitem__(self, index: object, value: object) -> None:
        super().__setitem__(_brought(index), value)

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copied = self.detach().clone()
        if isinstance(self, nn.Parameter):
            return nn.Parameter(copied, requires_grad=self.requires_grad)
        return copied.requires_grad_(self.requires_grad)

    def __repr__(self, **options) -> str:
        return f"Elsewhere({self.here!r})"


def entered():
    """The `PretendedGpu` whose context this is."""
    if Elsewhere.gpu is None:
        raise RuntimeError("a tensor of the pretended GPU is used outside of PretendedGpu()")
    return Elsewhere.gpu


def _brought(index: object) -> object:
    """Lists among indices as what torch makes of them: tensors on the device."""
    if isinstance(index, tuple):
        return tuple(_brought(one) for one in index)
    return torch.tensor(index, device="gpu") if isinstance(index, list) else index
