"""What is known of torch's operators: which run nothing on a GPU, which wait for it, and which take tensors of two
devices."""

from __future__ import annotations

import functools

import torch

NO_KERNEL = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided",
             "_unsafe_view", "lift", "resize_", "set_", "record_stream", "_local_scalar_dense"}
"""allocations, views that their schema does not call so, and a number's copy to the host"""

WAITING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_linalg_check_errors",
           "_linalg_svd", "_linalg_eigh", "linalg_eig", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
"""Their result, or its size, is known on the host only when the device is done."""

COPIES = {"copy_", "_to_copy", "_foreach_copy_"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
"""Their indices (the second argument) may lie on the CPU, and are then brought over."""

GATHERING = {"index", "_unsafe_index", "index_select", "gather", "embedding", "take"}
"""They read as much of their first argument as they give."""

OVERWRITING = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"}
"""They write their first argument without reading it."""


@functools.cache
def name_of(func) -> str:
    """`add_` of aten.add_.Tensor."""
    return func.__name__.split(".")[0]


@functools.cache
def is_view(func) -> bool:
    """Whether its results lie in its arguments' memory, or nothing but an argument's shape changes."""
    aliases = [value.alias_info for value in func._schema.returns if value.alias_info is not None]
    return any(not alias.is_write for alias in aliases) or torch.Tag.inplace_view in func.tags


@functools.cache
def writes(func) -> bool:
    """Whether it writes one of its arguments."""
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)


def argument(func, name: str, args: tuple, kwargs: dict) -> object:
    """The argument of this name as it was given, or its default; None where there is none of this name."""
    for position, known in enumerate(func._schema.arguments):
        if known.name == name:
            if name in kwargs:
                return kwargs[name]
            return args[position] if position < len(args) else known.default_value
    return None
