"""Embeddings that come with the recipe's LoRAs: the host knows their words while it reads a prompt, and only then.

The host itself registers those of its own `<lora:…>` until others are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modules import sd_hijack, shared
from modules.textual_inversion import textual_inversion
from torch import Tensor

from ....mixer.mixture import Mixture

_TABLE = "string_to_param."


@contextmanager
def known_words(mixture: Mixture | None) -> Iterator[None]:
    """While it lasts the host's tokenizer finds the embeddings that come with the LoRAs."""
    database, added = sd_hijack.model_hijack.embedding_db, []
    try:
        for word, parts in (mixture.embeddings if mixture else {}).items():
            embedding = _embedding(word, parts)
            if _hindrance(embedding) is None:
                added.append(word)
                database.register_embedding(embedding, shared.sd_model)
        yield
    finally:
        for word in added:
            database.register_embedding_by_name(None, shared.sd_model, word)


def notes_on_embeddings(mixture: Mixture) -> list[str]:
    """What of the embeddings cannot be used, and why."""
    found = {word: _hindrance(_embedding(word, parts)) for word, parts in mixture.embeddings.items()}
    return [f"the embedding {word!r} that comes with a LoRA is not used: {why}" for word, why in found.items() if why]


def _embedding(word: str, parts: Mapping[str, Tensor]) -> textual_inversion.Embedding:
    data = dict(parts)
    if (part := next(iter(parts))).startswith(_TABLE):
        data = {"string_to_param": {part[len(_TABLE):]: parts[part]}}
    return textual_inversion.create_embedding_from_data(data, word)


def _hindrance(embedding: textual_inversion.Embedding) -> str | None:
    database = sd_hijack.model_hijack.embedding_db
    if embedding.name in database.word_embeddings:
        return "the WebUI has one of this name"
    if database.expected_shape not in (-1, embedding.shape):
        return f"it is made for another model ({embedding.shape} wide, here {database.expected_shape})"
    return None
