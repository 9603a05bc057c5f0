"""Embeddings that come with LoRAs, on a diffusers pipeline: a word of the prompt that stands for vectors of its own.

In lists of tokens such a word is as many negative numbers as it has vectors: −1 for the first of all vectors, −2 for
the second, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

CHUNK = 75
"""tokens that a text encoder reads at once, without begin and end marks"""
_PARTS = {"te1": "clip_l", "te2": "clip_g"}


class Words(NamedTuple):
    """How many vectors each word has, in order; and by text encoder (te1, te2) all vectors, (vectors, width)."""

    counts: dict[str, int]
    vectors: dict[str, Tensor]


NO_WORDS = Words({}, {})


def usable_words(embeddings: Mapping[str, Mapping[str, Tensor]], widths: Mapping[str, int]) -> tuple[Words, list[str]]:
    """The words whose vectors the model's text encoders can take, and notes on the others.

    embeddings: as `LoraFile.embeddings`; widths: of the tokens' vectors, by text encoder.
    """
    counts, vectors, notes = {}, {prefix: [] for prefix in widths}, []
    for word, parts in embeddings.items():
        own = {prefix: parts.get(_PARTS[prefix]) for prefix in widths} if len(widths) > 1 else \
            dict(zip(widths, parts.values()))
        told = [None if one is None else one.shape[1] for one in own.values()]
        count = len(next(iter(parts.values())))
        if len(parts) != len(widths) or told != list(widths.values()):
            given = ", ".join(str(part.shape[1]) for part in parts.values())
            notes.append(f"the embedding {word!r} that comes with a LoRA is not used: it is made for another model "
                         f"({given} wide, here {', '.join(map(str, widths.values()))})")
        elif count > CHUNK:
            notes.append(f"the embedding {word!r} that comes with a LoRA is not used: {count} vectors do not fit into "
                         f"{CHUNK} tokens")
        else:
            counts[word] = count
            for prefix, one in own.items():
                vectors[prefix].append(one.float())
    return Words(counts, {prefix: torch.cat(some) for prefix, some in vectors.items() if some}), notes


def with_vectors(ids: list[int], words: Mapping[tuple[int, ...], list[int]]) -> list[int | list[int]]:
    """The tokens, in which those of a word (by its tokens) are one list, of the numbers of its vectors."""
    found, position = [], 0
    by_length = sorted(words, key=len, reverse=True)
    while position < len(ids):
        word = next((one for one in by_length if tuple(ids[position:position + len(one)]) == one), None)
        found.append(ids[position] if word is None else words[word])
        position += 1 if word is None else len(word)
    return found


@contextmanager
def standing_for(encoder: nn.Module, vectors: Tensor | None) -> Iterator[None]:
    """While it lasts the text encoder reads negative tokens as these vectors; then its hooks are gone."""
    if vectors is None:
        yield
        return
    table, given = encoder.get_input_embeddings(), []

    def without(module: nn.Module, args: tuple) -> tuple:
        given[:] = [args[0]]
        return (args[0].clamp(min=0), *args[1:])

    def replaced(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        ids = given.pop()
        output = output.clone()
        output[ids < 0] = vectors.to(output)[-1 - ids[ids < 0]]
        return output

    handles = [table.register_forward_pre_hook(without), table.register_forward_hook(replaced)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
