"""Prompts to embeddings, in chunks of 75 tokens as the host has them, with LoRAs on the text encoders."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from .embeddings import CHUNK, NO_WORDS, Words, standing_for, with_vectors


class Embeddings(NamedTuple):
    """`tokens`: (1, chunks x 77, width), what cross-attention reads; `pooled`: (1, width) for SDXL, else None."""

    tokens: Tensor
    pooled: Tensor | None


def encoders(pipe) -> list[tuple]:
    """(tokenizer, text encoder, layer prefix) of each text encoder of the pipeline."""
    parts = [("tokenizer", "text_encoder", "te1"), ("tokenizer_2", "text_encoder_2", "te2")]
    return [(getattr(pipe, tokenizer), getattr(pipe, encoder), prefix) for tokenizer, encoder, prefix in parts
            if getattr(pipe, encoder, None) is not None]


def count_chunks(pipe, text: str, words: Words = NO_WORDS) -> int:
    """How many chunks of 75 tokens a prompt takes; at least 1."""
    return max(len(token_chunks(tokenizer, text, words)) for tokenizer, _, _ in encoders(pipe))


@torch.no_grad()
def encode(pipe, text: str, chunks: int, clip_skip: int = 1, words: Words = NO_WORDS) -> Embeddings:
    """The prompt's embeddings, padded to so many chunks.

    clip_skip: the host's; 2 takes the layer before the last. SDXL takes that one always, without final norm. words:
    that stand for vectors.
    """
    parts = encoders(pipe)
    is_xl = hasattr(pipe, "text_encoder_2")
    columns, pooled = [], None
    for tokenizer, encoder, prefix in parts:
        with standing_for(encoder, words.vectors.get(prefix)):
            outputs = [encoder(ids.to(encoder.device), output_hidden_states=True)
                       for ids in _chunked_ids(tokenizer, text, chunks, words)]
        if is_xl:
            hidden = [output.hidden_states[-2] for output in outputs]
            pooled = outputs[0][0] if outputs[0][0].dim() == 2 else pooled
        elif clip_skip > 1:
            norm = getattr(encoder, "text_model", encoder).final_layer_norm
            hidden = [norm(output.hidden_states[-clip_skip]) for output in outputs]
        else:
            hidden = [output[0] for output in outputs]
        columns.append(torch.cat(hidden, dim=1))
    return Embeddings(torch.cat(columns, dim=-1), pooled)


def emphasis_note(text: str) -> str | None:
    """What to say about the host's prompt syntax, which is not interpreted here; None where there is none."""
    if re.search(r"\([^()]*:\s*[\d.]+\s*\)|\[[^\[\]:]*:[^\[\]]*\]|<\w+:[^<>]*>|\bAND\b|\bBREAK\b", text):
        return "the prompt has emphasis, editing or <lora:...> syntax of the WebUI; here it is read as plain text"
    return None


def token_ids(tokenizer, text: str) -> list[int]:
    """The text's tokens, without begin and end marks."""
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


def token_chunks(tokenizer, text: str, words: Words = NO_WORDS) -> list[list[int]]:
    """The text's tokens in chunks of 75; at least one chunk. A word's vectors stay in one chunk, as in the host."""
    chunks: list[list[int]] = [[]]
    for item in with_vectors(token_ids(tokenizer, text), _numbers(tokenizer, words)):
        tokens = item if isinstance(item, list) else [item]
        if len(chunks[-1]) + len(tokens) > CHUNK:
            chunks.append([])
        chunks[-1] += tokens
    return chunks


def words_in(tokenizer, text: str, words: Words) -> bool:
    """Whether one of these words is in the text."""
    return any(token < 0 for chunk in token_chunks(tokenizer, text, words) for token in chunk)


def _numbers(tokenizer, words: Words) -> dict[tuple[int, ...], list[int]]:
    """The numbers of each word's vectors, by the word's tokens."""
    numbers, first = {}, 0
    for word, count in words.counts.items():
        numbers[tuple(token_ids(tokenizer, word))] = [-1 - first - i for i in range(count)]
        first += count
    return numbers


def _chunked_ids(tokenizer, text: str, chunks: int, words: Words) -> list[Tensor]:
    """Token ids per chunk, (1, 77) each: start, 75 tokens, end; a short chunk ends early and is padded."""
    parts = token_chunks(tokenizer, text, words)
    rows = []
    for part in parts + [[]] * (chunks - len(parts)):
        padding = [tokenizer.pad_token_id] * (CHUNK - len(part))
        rows.append(torch.tensor([[tokenizer.bos_token_id, *part, tokenizer.eos_token_id, *padding]]))
    return rows
