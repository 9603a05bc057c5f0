"""Prompts as the host tokenizes them, in chunks of 75."""

from __future__ import annotations

from torch import nn

from ..model.parts import tokenizing_encoder


class Tokens:
    """Of the loaded model's text encoder; SDXL's two share their columns."""

    def __init__(self, sd_model: nn.Module):
        self.encoder = tokenizing_encoder(sd_model)

    def chunks(self, text: str) -> list[list[int]]:
        """Tokens by chunk, as the host lays them out; the vectors of an embedding get numbers of their own."""
        chunks = []
        for chunk in self.encoder.tokenize_line(text)[0]:
            tokens = list(chunk.tokens[1:-1])
            for fix in chunk.fixes:
                for i in range(fix.embedding.vectors):
                    tokens[fix.offset + i] = -hash((fix.embedding.name, i)) % 2**31 + 2**31
            chunks.append(tokens)
        return chunks

    def of_words(self, text: str) -> list[int]:
        """The tokens of a few words, without the padding after them."""
        tokens = self.chunks(text)[0] if text else []
        while tokens and tokens[-1] == self.encoder.id_end:
            tokens.pop()
        return tokens
