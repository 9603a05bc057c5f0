"""What ran on the pretended GPU in a while, counted."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

ENGINE = "sciart_ext"


@dataclass
class Counts:
    """How many of what (`costs`)."""

    kernels: Counter[str] = field(default_factory=Counter)
    """by operator; views and allocations are none"""
    launches: int = 0
    """of kernels and of copies between devices"""
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(operator, file:line of the engine) for which the host stands still until the device is done"""
    bytes: int = 0
    """read and written by kernels; numbers that a broadcast repeats count once"""
    crossed: int = 0
    """bytes copied between host and device, either way"""


def engine_line() -> str:
    """file:line of the innermost frame in the engine, from its package on; "elsewhere" where there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition(f"/{ENGINE}/")
        if found:
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
