"""A pretended GPU whose tensors have shapes and no numbers: models of any size, with no memory and in little time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from . import backend
from .call import Call
from .device import PretendedGpu
from .leaves import with_tensors


class HollowGpu(PretendedGpu):
    """Holds meta tensors in place of the CPU's: kernels, launches, waits, bytes and live memory are counted as ever.

    A number that the host reads from it is 1, or true; what is copied to the CPU as a whole is ones, and a CPU tensor
    that is copied into stays as it was. Attention is one kernel, which keeps no heads × pixels × tokens matrix, as
    CUDA's (FlashAttention, arXiv 2205.14135).
    """

    def __init__(self, total_memory: int = 80 * 2**30, limit: int | None = None):
        super().__init__(total_memory, limit)
        self._found: dict[tuple, object] = {}

    def __enter__(self) -> HollowGpu:
        super().__enter__()
        self._entered.enter_context(_Flash())
        return self

    def compute(self, func, call: Call, args: list, options: dict) -> object:
        name = call.operator.name
        if name == "_local_scalar_dense":
            return True if args[0].dtype == torch.bool else (1.0 if args[0].is_floating_point() else 1)
        if name in ("is_nonzero", "equal"):
            return True
        if name == "_to_copy" and call.to == "cpu":
            return torch.ones((), dtype=options.get("dtype") or args[0].dtype).expand(args[0].shape)
        if name == "copy_" and not args[0].is_meta:
            return args[0]
        if call.to is not None:
            options["device"] = "meta"
        if call.operator.is_view or call.operator.writes:
            return func(*args, **options)
        return self._once(func, args, options)

    def _once(self, func, args: list, options: dict) -> object:
        """The results' shapes are found once for arguments of the same: in Python, which takes most of the time."""
        key = (func, _told(args), _told(list(options.items())))
        if key not in self._found:
            self._found[key] = with_tensors(func(*args, **options), _outline)
        return _made(self._found[key])


class _Flash(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].device.type == backend.NAME:
            return _flash(*args, **kwargs)
        return func(*args, **kwargs)


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None = None,
           dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
           enable_gqa: bool = False) -> torch.Tensor:
    if attn_mask is not None or enable_gqa:
        raise NotImplementedError("attention with a mask or with groups, which FlashAttention does not take")
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]


class _Outline(tuple):
    """(shape, strides, precision) of a tensor."""


def _outline(tensor: torch.Tensor) -> _Outline:
    return _Outline((tuple(tensor.shape), tensor.stride(), tensor.dtype))


def _told(value: object) -> object:
    """What decides a result's shape, in a form that a table can look up."""
    if isinstance(value, torch.Tensor):
        return _outline(value), value.device.type
    if isinstance(value, (list, tuple)):
        return tuple(map(_told, value))
    return type(value), value


def _made(found: object) -> object:
    if isinstance(found, _Outline):
        shape, strides, dtype = found
        return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    return type(found)(map(_made, found)) if isinstance(found, (list, tuple)) else found
