"""When memory runs out: telling it from other errors, and how many rows would have fitted."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .errors import SciArtError

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's allocator, or the CPU's, had nothing left; torch has no type of its own for the latter."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error))


def unless_too_large(run: Callable[[], T], refusal: Callable[[], Exception | None]) -> T:
    """What `run` returns; where memory runs out in it, what it held is freed, and then the refusal raised, or, where
    that is None, the error itself.
    """
    try:
        return run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        free()
        raise refusal() or error from None


def rows_that_fit(call: Callable[[int], object], most: int) -> int:
    """The most rows, below `most`, for which `call` does not run out of memory; by bisection, 0 if one is too many."""
    fitting, too_many = 0, most
    while too_many - fitting > 1:
        rows = (fitting + too_many) // 2
        try:
            call(rows)
            fitting = rows
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            too_many = rows
        free()
    return fitting


def too_many_rows(rows: int, fitting: int, images: int, each: int, ways_out: Sequence[tuple[int, str]],
                  ) -> SciArtError:
    """The refusal of so many rows in one call, of which `fitting` would fit.

    each: rows at once of one of the pictures, where it is evaluated whole. ways_out: (rows at once that they need,
    what to do instead), of which those that fit are told.
    """
    smaller = [f"a batch size of {min(fitting // each, images - 1)}"] if images > 1 and fitting >= each else []
    others = [way for needed, way in ways_out if needed <= fitting]
    at_once = "1 row does" if rows == 1 else f"{rows} rows at once do"
    return SciArtError("compose", f"out of memory: {at_once} not fit, {fitting} would; accepted: "
                                  f"{', '.join([*smaller, *others, 'a smaller picture'])}")


def free() -> None:
    """Gives back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
