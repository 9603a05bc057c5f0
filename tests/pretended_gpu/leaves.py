"""The tensors among an operator's arguments and results: by themselves, or in lists and tuples, one in another.

What `torch.utils._pytree` does for any structure; this takes a tenth of its time, which is most of an operator's here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch


def tensors_in(values: Iterable) -> list[torch.Tensor]:
    """All tensors, in order."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
    return found


def with_tensors(value: object, change: Callable[[torch.Tensor], object]) -> object:
    """The value with `change(tensor)` in place of each tensor in it."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([with_tensors(one, change) for one in value])
    return value
