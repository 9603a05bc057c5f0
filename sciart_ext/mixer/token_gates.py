"""Token gates: where in the picture, and in which text, a LoRA with a mask acts.

    y_p = W x_p + Σ_k λ_k g_k(p) s_k B_k A_k x_p

p is a place of the layer's own grid. In the layers that read the prompt (`attn2.to_k`, `attn2.to_v`) g is 1 for the
LoRA whose text is read, or for all where there is but one. A layer through which one vector goes for a whole picture,
as the time's embedding, has the mean of g over the picture.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnknownRowsError, UnplacedError
from .gates import sent

TEXT, ROW = "text", "row"
"""places in a model that have no grid (`cost.place_of`)"""


class TokenGates:
    """g of the LoRAs that have masks, in each view: what a row of a call has, an image's masks.

    loras: their indices; masks: (views, or 1 for all, loras, h, w), 0 to 1, on the latents' grid; has_texts: whether
    each place reads one of several texts, all of one length, which lie one after another in a row's context: the first
    where no mask is, and no LoRA acts in it, each other one where the mask of its LoRA is, and that LoRA alone acts in
    it.
    """

    def __init__(self, loras: Sequence[int], masks: Tensor, has_texts: bool = False):
        self.loras = tuple(loras)
        self.masks = masks
        self._here = masks.cpu()
        """in main memory, where it is known without waiting how many places a text is read at"""
        self.texts = len(self.loras) + 1 if has_texts else 1
        """in a row's context"""
        self._of_rows = functools.lru_cache(maxsize=4)(self._made)

    def of_rows(self, views: tuple[int, ...], size: tuple[int, int]) -> RowGates:
        """Of a call whose rows have these views, with latents of this size (h, w). Raises `UnplacedError` where it is
        not the masks' own."""
        if size != tuple(self.masks.shape[-2:]):
            known, found = (f"{width} × {height}" for height, width in (self.masks.shape[-2:], size))
            raise UnplacedError("compose", f"the UNet was called with latents of {found} where masks are {known}: an "
                                           "extension cuts the picture into tiles; accepted: merge, switch, or that "
                                           "extension off for this picture")
        return self._of_rows(views if len(self.masks) > 1 else (0,) * len(views))

    def _made(self, views: tuple[int, ...]) -> RowGates:
        rows = len(views)
        if len(set(views)) == 1:
            views = views[:1]
        chosen = torch.tensor(views)
        return RowGates(self.loras, self.masks.index_select(0, sent(chosen, self.masks.device)),
                        self._here.index_select(0, chosen), self.texts, rows)


class RowGates:
    """Token gates of the rows of a call: masks (rows, loras, h, w), or (1, loras, h, w) for all of them; here: the
    same, in main memory."""

    def __init__(self, loras: Sequence[int], masks: Tensor, here: Tensor, texts: int, rows: int):
        self.masks = masks
        self.texts = texts
        self.rows = rows
        self._here = here
        self._read = 0
        """the number of the text that is read now"""
        self._readers: Tensor | None = None
        """the tokens that read it, if not all (`readers`)"""
        self._columns = {k: column for column, k in enumerate(loras)}
        self._grids = _grids(*masks.shape[-2:])
        """by halvings of the latents' grid"""
        self._made: dict[tuple, Tensor | Sequence[Tensor] | None] = {}

    def of(self, place: str | int, owners: tuple[int, ...], y: Tensor) -> Tensor:
        """What multiplies each rank, or each delta, whose LoRAs are `owners`, in a layer with output y: (rows or 1,
        tokens, owners) for y (rows, tokens, out), (rows or 1, owners) for y (rows, out), (rows or 1, owners, h, w) for
        y (rows, out, h, w); float32.

        Raises `UnplacedError` where the tokens of y are not those of the picture's grid there, and `UnknownRowsError`
        where its rows are not the call's.
        """
        size = tuple(y.shape[2:]) if y.dim() == 4 else y.shape[1:-1]
        size, text = (None, self._read) if place == TEXT else (size, None if self._readers is None else self._read)
        key = (place, owners, size, text)
        if key not in self._made:
            self._made[key] = self._make(place, owners, size, y.dim() == 4)
        if len(y) != self.rows:
            raise UnknownRowsError(f"SciArt: a layer was called with {len(y)} rows in a call of {self.rows}, and where "
                                   "masks are in them is not known")
        return self._made[key]

    def readers(self, number: int, place: int, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The tokens of y's grid at which a subject's text is read, by their indices (rows or 1, most of a row), and
        how much they take of it, (rows or 1, most, 1), in y's precision; where a row has fewer, others that take
        nothing. None where it is read nowhere."""
        key = ("readers", number, place, y.dtype)
        if key not in self._made:
            reads = _on_grid(self._here, self._grids[min(place, len(self._grids) - 1)])[:, number - 1].flatten(1) > 0
            most = int(reads.sum(1).max())
            first = torch.argsort(reads.int(), dim=1, descending=True, stable=True)[:, :most]
            first = sent(first, self.masks.device)
            self._made[key] = (first, self.shares(place, y)[number].gather(1, first.unsqueeze(2))) if most else None
        return self._made[key]

    def read(self, number: int, readers: Tensor | None = None) -> None:
        """From now on this one of the texts is read, by these tokens or by all."""
        self._read, self._readers = number, readers

    def shares(self, place: int, y: Tensor) -> list[Tensor]:
        """How much of what it makes of each text each token of y (rows, tokens, width) takes: (rows or 1, tokens, 1),
        in y's precision. Places of several masks share."""
        key = ("shares", place, y.shape[1:-1], y.dtype)
        if key not in self._made:
            own = self._of_tokens(place, y.shape[1:-1])
            own = own / own.sum(1, keepdim=True).clamp(min=1)
            every = torch.cat([1 - own.sum(1, keepdim=True), own], 1).to(y.dtype)
            self._made[key] = [share.unsqueeze(2) for share in every.unbind(1)]
        return self._made[key]

    def _make(self, place: str | int, owners: tuple[int, ...], size: tuple[int, ...] | None, is_grid: bool) -> Tensor:
        columns = sent(torch.tensor([self._columns[k] for k in owners]), self.masks.device)
        if is_grid:
            return self._masks_on(size).index_select(1, columns)
        found = self._of_tokens(place, size).index_select(1, columns).transpose(1, 2).contiguous()
        return found.squeeze(1) if size == () else found

    def _of_tokens(self, place: str | int, size: tuple[int, ...]) -> Tensor:
        """(rows or 1, loras, tokens or 1)."""
        if place == TEXT:
            return self._of_text()
        if place == ROW:
            return self._whole()
        down, across = self._grids[min(place, len(self._grids) - 1)]
        if self._readers is not None:
            every = self._masks_on((down, across)).flatten(2)
            return every.gather(2, self._readers.unsqueeze(1).expand(-1, every.shape[1], -1))
        if size != (down * across,):
            raise UnplacedError("compose", f"a layer of the UNet got {size[0]} tokens where the picture has "
                                           f"{down * across}: masks have no place in them; accepted: merge, switch, or "
                                           "token merging, Hypertile and the like off")
        return self._masks_on((down, across)).flatten(2)

    def _of_text(self) -> Tensor:
        """The same of the text that is read, in all of its words."""
        acts = [self.texts == 1 or self._read == number for number in range(1, len(self._columns) + 1)]
        return sent(torch.tensor(acts, dtype=torch.float32).view(1, -1, 1), self.masks.device)

    def _whole(self) -> Tensor:
        """The mean over the picture, (rows or 1, loras, 1)."""
        return self.masks.float().mean((2, 3)).unsqueeze(2)

    def _masks_on(self, size: tuple[int, int]) -> Tensor:
        key = ("masks", size)
        if key not in self._made:
            self._made[key] = _on_grid(self.masks, size)
        return self._made[key]


def _on_grid(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """masks (…, h, w) on another grid, float32: the mean of what each of its places covers."""
    masks = masks.float()
    if size == tuple(masks.shape[-2:]):
        return masks
    if size[0] <= masks.shape[-2] and size[1] <= masks.shape[-1]:
        return F.adaptive_avg_pool2d(masks, size)
    return F.interpolate(masks, size, mode="bilinear")


def _grids(height: int, width: int) -> list[tuple[int, int]]:
    """The grids of a UNet from the latents' down to one place: a convolution of stride 2 rounds up."""
    found = [(height, width)]
    while found[-1] != (1, 1):
        found.append(tuple((side + 1) // 2 for side in found[-1]))
    return found
