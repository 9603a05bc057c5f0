"""`torch.autocast` on the pretended GPU: CUDA's lists (ATen/autocast_mode.h), as far as models and mixers use them."""

from __future__ import annotations

import torch

from .leaves import with_tensors

KEY = "AutocastPrivateUse1"
LOWERED = ("mm", "bmm", "addmm", "addbmm", "baddbmm", "matmul", "linear", "conv2d", "einsum",
           "scaled_dot_product_attention")
WIDENED = ("exp", "log", "rsqrt", "reciprocal", "pow.Tensor_Scalar", "softmax.int", "layer_norm", "native_layer_norm",
           "group_norm", "sum", "sum.dim_IntList", "cosine_similarity", "mse_loss")
FLOATS = (torch.float16, torch.bfloat16, torch.float32)

_LIBRARIES: list[torch.library.Library] = []
"""held, for what they register lasts as long as they do"""


def register() -> None:
    """To be called once in a process."""
    every = torch.library.Library("_", "IMPL")
    every.fallback(torch.library.fallthrough_kernel, KEY)
    aten = torch.library.Library("aten", "IMPL")
    for name in LOWERED:
        aten.impl(name, _casting(name, None), KEY)
    for name in WIDENED:
        aten.impl(name, _casting(name, torch.float32), KEY)
    _LIBRARIES.extend([every, aten])


def _casting(name: str, dtype: torch.dtype | None):
    """The operator, its arguments on the device cast first: to this type, or to the one that autocast is set to."""
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
    below = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEY))

    def run(*args, **kwargs):
        to = torch.get_autocast_dtype("gpu") if dtype is None else dtype

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(to) if tensor.device.type == "gpu" and tensor.dtype in FLOATS else tensor

        with torch._C._ExcludeDispatchKeyGuard(below):
            return operator(*with_tensors(args, cast), **{key: with_tensors(value, cast)
                                                          for key, value in kwargs.items()})
    return run
