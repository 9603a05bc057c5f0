"""Prompts to embeddings, as the host has them: emphasised, in chunks, with LoRAs on the text encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import SciArtError
from .chunks import Chunk, chunks_of
from .embeddings import CHUNK, NO_WORDS, Words, standing_for

NO_MEAN = 1e-5
"""Times their size: a mean of hidden states that is no more than rounding, as where the last norm has no bias. There is
none to give back then; the host would multiply by chance."""


class Embeddings(NamedTuple):
    """`tokens`: (1, chunks x 77, width), what cross-attention reads; `pooled`: (1, width) for SDXL, else None."""

    tokens: Tensor
    pooled: Tensor | None


def encoders(pipe) -> list[tuple]:
    """(tokenizer, text encoder, layer prefix) of each text encoder of the pipeline."""
    parts = [("tokenizer", "text_encoder", "te1"), ("tokenizer_2", "text_encoder_2", "te2")]
    return [(getattr(pipe, tokenizer), getattr(pipe, encoder), prefix) for tokenizer, encoder, prefix in parts
            if getattr(pipe, encoder, None) is not None]


def is_xl(pipe) -> bool:
    """Whether it is SDXL's, with two text encoders."""
    return hasattr(pipe, "text_encoder_2")


def count_chunks(pipe, text: str, words: Words = NO_WORDS) -> int:
    """How many chunks of 75 tokens a text takes; at least 1."""
    return max(len(chunks_of(tokenizer, text, words)) for tokenizer, _, _ in encoders(pipe))


def encode(pipe, text: str, chunks: int, clip_skip: int = 1, words: Words = NO_WORDS) -> Embeddings:
    """The embeddings of one text, padded to so many chunks. Arguments: `encode_texts`'s."""
    return encode_texts(pipe, [text], clip_skip, words, chunks)[text]


@torch.no_grad()
def encode_texts(pipe, texts: Sequence[str], clip_skip: int = 1, words: Words = NO_WORDS,
                 chunks: int = 1) -> dict[str, Embeddings]:
    """The embeddings of what a prompt is at each step, all of one length, of so many chunks or more.

    Brackets in the texts are read (`syntax.pieces_of`). clip_skip: the host's; 2 takes the layer before the
    last. SDXL takes that one always, without final norm. words: that stand for vectors. Raises `SciArtError` ("prompt")
    for weights that cannot be carried out.
    """
    counts = Counter(texts)
    chunks = max(chunks, *(count_chunks(pipe, text, words) for text in counts))
    columns: list[list[Tensor]] = []  # of each encoder, of each text
    pooled: list[Tensor | None] = [None] * len(counts)
    for tokenizer, encoder, prefix in encoders(pipe):
        laid_out = [chunks_of(tokenizer, text, words) for text in counts]
        laid_out = [own + [Chunk([], [])] * (chunks - len(own)) for own in laid_out]
        with standing_for(encoder, words.vectors.get(prefix)):
            outputs = [[encoder(_ids(tokenizer, chunk).to(encoder.device), output_hidden_states=True) for chunk in own]
                       for own in laid_out]
        if is_xl(pipe) and outputs[0][0][0].dim() == 2:
            pooled = [own[0][0] for own in outputs]
        hidden = [[_hidden(encoder, output, clip_skip, is_xl(pipe)) for output in own] for own in outputs]
        by_chunk = [_emphasised(list(same), [own[number] for own in laid_out], list(counts.values()))
                    for number, same in enumerate(zip(*hidden))]
        columns.append([torch.cat(own, dim=1) for own in zip(*by_chunk)])
    return {text: Embeddings(torch.cat(own, dim=-1), its_pooled)
            for text, own, its_pooled in zip(counts, zip(*columns), pooled)}


def no_words(like: Embeddings) -> Embeddings:
    """What SDXL reads in the host where the negative prompt is empty."""
    return Embeddings(torch.zeros_like(like.tokens), torch.zeros_like(like.pooled))


def _ids(tokenizer, chunk: Chunk) -> Tensor:
    """Token ids (1, 77): start, up to 75 tokens, end, padding."""
    padding = [tokenizer.pad_token_id] * (CHUNK - len(chunk.tokens))
    return torch.tensor([[tokenizer.bos_token_id, *chunk.tokens, tokenizer.eos_token_id, *padding]])


def _hidden(encoder, output, clip_skip: int, is_xl: bool) -> Tensor:
    """(1, 77, width), of the layer that is read."""
    if is_xl:
        return output.hidden_states[-2]
    if clip_skip > 1:
        return getattr(encoder, "text_model", encoder).final_layer_norm(output.hidden_states[-clip_skip])
    return output[0]


def _emphasised(hidden: list[Tensor], chunks: Sequence[Chunk], counts: Sequence[int]) -> list[Tensor]:
    """One chunk of some texts, each (1, 77, width), times its tokens' weights, and all by one factor that gives their
    mean back: the host's mean is over all steps' texts, of which each is there so many times."""
    if all(weight == 1 for chunk in chunks for weight in chunk.weights):
        return hidden
    weighted = []
    for one, chunk in zip(hidden, chunks):
        weights = [1.0, *chunk.weights, *[1.0] * (CHUNK + 1 - len(chunk.weights))]
        weighted.append(one.float() * torch.tensor(weights, device=one.device).view(1, -1, 1))
    before, after = _mean(hidden, counts), _mean(weighted, counts)
    size = _mean([one.abs() for one in hidden], counts)
    factor = torch.where(before.abs() > NO_MEAN * size, before / after, 1.0)
    found = [(one * factor).to(hidden[0].dtype) for one in weighted]
    if not all(one.isfinite().all() for one in found):
        raise SciArtError("prompt", "the weights of its brackets are too large for the text encoder")
    return found


def _mean(hidden: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    return sum(one.float().mean() * count for one, count in zip(hidden, counts)) / sum(counts)
