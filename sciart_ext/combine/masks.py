"""Which entries of a delta are kept, the largest or random ones; and remembering that in one bit each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PLACES = torch.arange(8, dtype=torch.uint8)
"""of bits in a byte"""


def largest(delta: Tensor, density: float) -> Tensor:
    """The share `density` of the entries that is largest in magnitude, at least one, and what is as large as the least
    of them: bool, in the delta's shape.

    TIES' trim (arXiv 2306.01708, section 3), layer by layer as in PEFT and mergekit, where the paper trims the whole
    model's entries together. On a CPU NumPy's partition finds the limit 15 times as fast as torch's topk or kthvalue;
    on a GPU topk is quick.
    """
    import numpy as np

    sizes = delta.abs()
    count = max(int(density * delta.numel()), 1)
    if delta.device.type != "cpu":
        return sizes >= sizes.flatten().topk(count, sorted=False).values.min()
    least = delta.numel() - count
    return sizes >= float(np.partition(sizes.flatten().numpy(), least)[least])


def at_random(shape: Sequence[int], density: float, seed: int, layer: str, lora: str) -> Tensor:
    """DARE's drop (arXiv 2311.03099, section 3.2): every entry is kept with probability `density`; bool, on the CPU.

    It depends on seed, layer and LoRA alone: not on the order of either, nor on the device.
    """
    digest = hashlib.sha256(f"{seed}\n{layer}\n{lora}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(tuple(shape), generator=generator) < density


def pack(mask: Tensor) -> Tensor:
    """Eight entries in a byte, in main memory, wherever the mask is."""
    import numpy as np

    flat = mask.flatten()
    if mask.device.type == "cpu":
        return torch.from_numpy(np.packbits(flat.numpy(), bitorder="little"))
    eights = F.pad(flat, (0, -flat.numel() % 8)).view(torch.uint8).view(-1, 8)
    return (eights << PLACES.to(mask.device)).sum(1, dtype=torch.uint8).cpu()


class Bits(NamedTuple):
    """Masks (out, in) of several LoRAs in one bit an entry: packed (LoRAs, bytes); places: `PLACES`, beside it."""

    packed: Tensor
    places: Tensor
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.places.nbytes

    def each(self, change: Callable[[Tensor], Tensor]) -> Bits:
        """The same with both tensors changed: moved."""
        return Bits(change(self.packed), change(self.places), self.shape)

    def chosen(self, numbers: Sequence[int]) -> Bits:
        """Of these LoRAs."""
        return self._replace(packed=chosen(self.packed, numbers))

    def rows(self, rows: slice) -> Tensor:
        """Bool (LoRAs, rows, in); they begin at a multiple of eight."""
        import numpy as np

        start, count = rows.start * self.shape[1], (rows.stop - rows.start) * self.shape[1]
        packed = self.packed[:, start // 8:-(-(start + count) // 8)]
        if packed.device.type == "cpu":
            bits = torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=count, bitorder="little"))
        else:
            bits = (packed[:, :, None] >> self.places).bitwise_and_(1).flatten(1)[:, :count]
        return bits.view(torch.bool).view(len(packed), -1, self.shape[1])

    def whole(self) -> Tensor:
        """Bool (LoRAs, out, in)."""
        return self.rows(slice(0, self.shape[0]))


class Bools(NamedTuple):
    """The same in one byte an entry: mask (LoRAs, out, in)."""

    mask: Tensor

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes

    def chosen(self, numbers: Sequence[int]) -> Bools:
        return Bools(chosen(self.mask, numbers))

    def rows(self, rows: slice) -> Tensor:
        return self.mask[:, rows]


def chosen(stack: Tensor, numbers: Sequence[int]) -> Tensor:
    """Some of a stack's tensors: a view where they are neighbours."""
    if list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
        return stack[numbers[0]:numbers[-1] + 1]
    return torch.stack([stack[number] for number in numbers])
