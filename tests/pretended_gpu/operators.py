"""What is known of torch's operators: which run nothing on a GPU, which wait for it, and which take tensors of two
devices."""

from __future__ import annotations

import functools
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Operator:
    """What there is to know of one before it is called."""

    name: str
    """`add_` of aten.add_.Tensor"""
    is_view: bool
    """whether its results lie in its arguments' memory, or nothing but an argument's shape changes"""
    writes: bool
    """whether it writes one of its arguments"""
    runs: bool
    """whether it is a kernel, if it has a result or writes one"""
    arguments: dict[str, tuple[int, object]]
    """their places and defaults by name"""

    def argument(self, name: str, args: tuple, kwargs: dict) -> object:
        """The argument of this name as it was given, or its default; None where there is none of this name."""
        place, default = self.arguments.get(name, (len(args), None))
        return kwargs.get(name, args[place] if place < len(args) else default)


@functools.cache
def known(func) -> Operator:
    """Of an operator as torch's dispatcher hands it over."""
    schema, name = func._schema, func.__name__.split(".")[0]
    aliases = [value.alias_info for value in schema.returns if value.alias_info is not None]
    is_view = any(not alias.is_write for alias in aliases) or torch.Tag.inplace_view in func.tags
    writes = any(value.alias_info is not None and value.alias_info.is_write for value in schema.arguments)
    arguments = {value.name: (place, value.default_value) for place, value in enumerate(schema.arguments)}
    return Operator(name, is_view, writes, not is_view and name not in NO_KERNEL, arguments)
