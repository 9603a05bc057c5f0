"""A text's tokens with their weights, in chunks of 75 as the host lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .embeddings import CHUNK, NO_WORDS, Words, with_vectors
from .syntax import pieces_of

COMMA_BACKTRACK = 20
"""tokens after a chunk's last comma that move on with the word that finds the chunk full; the host's default"""


class Chunk(NamedTuple):
    """Up to 75 tokens, and the weight of each."""

    tokens: list[int]
    weights: list[float]

    def take(self, tokens: list[int], weight: float) -> None:
        self.tokens.extend(tokens)
        self.weights.extend([weight] * len(tokens))

    def cut(self, start: int) -> Chunk:
        """Takes out what is from there on."""
        rest = Chunk(self.tokens[start:], self.weights[start:])
        del self.tokens[start:], self.weights[start:]
        return rest


def token_ids(tokenizer, text: str) -> list[int]:
    """The tokens of a few words as they are, without begin and end marks."""
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


def token_chunks(tokenizer, text: str, words: Words = NO_WORDS) -> list[list[int]]:
    """The text's tokens by chunk; at least one chunk."""
    return [chunk.tokens for chunk in chunks_of(tokenizer, text, words)]


def words_in(tokenizer, text: str, words: Words) -> bool:
    """Whether one of these words is in the text."""
    return any(token < 0 for chunk in token_chunks(tokenizer, text, words) for token in chunk)


def chunks_of(tokenizer, text: str, words: Words = NO_WORDS) -> list[Chunk]:
    """The text's chunks; at least one. BREAK ends a chunk; a word's vectors stay in one, as in the host."""
    comma = token_ids(tokenizer, ",")
    chunks = [Chunk([], [])]
    last_comma = None

    def begin(chunk: Chunk) -> None:
        nonlocal last_comma
        chunks.append(chunk)
        last_comma = None

    for tokens, weight in _items(tokenizer, text, words):
        if tokens is None:
            begin(Chunk([], []))
            continue
        full = len(chunks[-1].tokens) == CHUNK
        if tokens == comma:
            last_comma = len(chunks[-1].tokens)
        elif full and last_comma is not None and CHUNK - last_comma <= COMMA_BACKTRACK:
            begin(chunks[-1].cut(last_comma + 1))
        if len(chunks[-1].tokens) + len(tokens) > CHUNK:
            begin(Chunk([], []))
        chunks[-1].take(tokens, weight)
    if len(chunks) > 1 and not chunks[-1].tokens:
        chunks.pop()
    return chunks


def _items(tokenizer, text: str, words: Words) -> Iterator[tuple[list[int] | None, float]]:
    """Tokens that stay together, and their weight; None for BREAK."""
    numbers = _numbers(tokenizer, words)
    for piece in pieces_of(text):
        if piece.is_break:
            yield None, 1.0
        else:
            for item in with_vectors(token_ids(tokenizer, piece.text), numbers):
                yield (item if isinstance(item, list) else [item]), piece.weight


def _numbers(tokenizer, words: Words) -> dict[tuple[int, ...], list[int]]:
    """The numbers of each word's vectors, by the word's tokens."""
    numbers, first = {}, 0
    for word, count in words.counts.items():
        numbers[tuple(token_ids(tokenizer, word))] = [-1 - first - i for i in range(count)]
        first += count
    return numbers
