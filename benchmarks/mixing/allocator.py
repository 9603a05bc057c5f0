"""How the C library's allocator is set while something is measured.

glibc gives freed memory back to the system and takes it anew, page by page, at the next layer: with its
defaults an SD 1.5 step at 256² touched 0.3 or 1.2 million fresh pages, depending on how the heap happened to
lie, and took 2.3 or 3.3 s for the same work. KEEPING makes every variant, the one without LoRAs included, keep
what it freed (the WebUI's own launcher loads TCMalloc on Linux to the same end). RETURNING gives every tensor
back at once, so that a peak is that of live memory. Other systems' allocators ignore both.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor

KEEPING = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
}
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}
SETTINGS = {"keeping": KEEPING, "system": {}}


def restart_with(environment: dict[str, str]) -> None:
    """Starts this program anew where its environment lacks these settings: they are read when a process starts."""
    if sys.platform.startswith("linux") and any(os.environ.get(k) != v for k, v in environment.items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **environment})


def in_fresh_process(function: Callable, *arguments, environment: Mapping[str, str] = RETURNING):
    """What the function gives where nothing else has used memory before, and what is freed is given back."""
    kept = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        for name, value in kept.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
