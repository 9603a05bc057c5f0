"""The memory of the pretended GPU: what lives on it, the most that ever did, and the refusal of more."""

from __future__ import annotations

import weakref

import torch


class Memory:
    """Bytes of the device's storages, exact: without the rounding and the caches of a real allocator.

    total: what the device says it has; limit: live bytes beyond which an allocation fails, the total by default.
    """

    def __init__(self, total: int, limit: int | None = None):
        self.total = total
        self.limit = total if limit is None else limit
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def allocated(self, storage: torch.UntypedStorage) -> None:
        """Counts a storage until it is let go of, once; raises `torch.cuda.OutOfMemoryError` beyond the limit."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        if self.live + size > self.limit:
            raise torch.cuda.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {_mib(size)}. GPU 0 has a total capacity of "
                f"{_mib(self.total)} of which {_mib(max(self.limit - self.live, 0))} is free.")
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size).atexit = False

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f} MiB"
