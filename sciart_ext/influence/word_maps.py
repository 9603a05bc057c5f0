"""Where the words of a prompt are seen: cross-attention over all layers and steps (DAAM, Tang et al. 2023, eq. 6)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..errors import SciArtError, did_you_mean, shown
from ..guidance.attention import AttentionMaps, attention_levels
from ..guidance.words import mentions_of
from ..mixer.gates import sent
from ..mixer.targets import Target

MAX_WORDS = 8
_SMALL_WORDS = frozenset("""a an and are as at be beside between but by for from has have her his in into is it its
    like near next of off on onto or over the their there they this that to under up very which while with without
    """.split())


class WordMaps:
    """Adds up, while in context, how much each pixel of the latent's grid looks at each of some words."""

    def __init__(self, root: nn.Module, layers: Mapping[str, Target], columns: Sequence[Sequence[int]]):
        self._levels = [AttentionMaps(root, layers, level) for level in attention_levels(layers)]
        self._columns = [list(one) for one in columns]
        self._columns_on = functools.lru_cache(maxsize=2)(self._indices)
        self._stack = ExitStack()
        self._sum: Tensor | float = 0.0
        self._rows: Sequence[Sequence[int]] = []
        self.calls = 0

    def __enter__(self) -> WordMaps:
        for maps in self._levels:
            self._stack.enter_context(maps)
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def record(self, rows: Sequence[Sequence[int]]) -> None:
        """What the next call, or the next few, will show: of each image, the rows that look for it, by number; of
        several the mean."""
        self._rows = rows
        for maps in self._levels:
            maps.record(1 + max(row for image in rows for row in image))

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Calls in this context show nothing."""
        with ExitStack() as stack:
            for maps in self._levels:
                stack.enter_context(maps.looking_away())
            yield

    def add(self) -> None:
        """Takes what that call has shown: each word's mean over its tokens, heads and layers, at the finest grid."""
        seen = [self._of_images(maps.maps()) for maps in self._levels]
        found = [torch.stack([maps[..., columns].mean(-1) for columns in self._columns_on(maps.device)], 1)
                 for maps in seen]
        size = found[0].shape[-2:]
        self._sum = self._sum + sum(nn.functional.interpolate(one, size, mode="bilinear") for one in found) / len(found)
        self.calls += 1

    def _of_images(self, maps: Tensor) -> Tensor:
        return torch.stack([torch.stack([maps[row] for row in rows]).mean(0) for rows in self._rows])

    def _indices(self, device: torch.device) -> list[Tensor]:
        return [sent(torch.tensor(columns), device) for columns in self._columns]

    def maps(self) -> Tensor:
        """(images, words, h, w), float32: means over the calls."""
        if not self.calls:
            raise RuntimeError("SciArt: no call of the UNet was recorded")
        return self._sum / self.calls


def telling_words(prompt: str) -> list[str]:
    """The words of a prompt worth a map, in order, each once: not articles, prepositions and the like; no more than
    `MAX_WORDS`."""
    words = dict.fromkeys(word for word in re.findall(r"[\w-]+", prompt) if not word[0].isdigit())
    return [word for word in words if word.lower() not in _SMALL_WORDS][:MAX_WORDS]


def columns_of(words: Sequence[str], prompt: str, tokens: Callable[[str], Sequence[int]],
               chunks: Sequence[Sequence[int]]) -> list[list[int]]:
    """Columns of the text embedding of each word, at all its mentions.

    tokens: tokenizes a word; chunks: the prompt's tokens. Raises `SciArtError` where a word is not in the prompt.
    """
    found = []
    for word in words:
        mentions = mentions_of(tokens(word), chunks) if word.strip() else []
        if not mentions:
            known = re.findall(r"[\w-]+", prompt)
            raise SciArtError("words", f"{shown(word)} is not in the prompt; {did_you_mean(word, known)}")
        found.append([column for mention in mentions for column in mention])
    return found
