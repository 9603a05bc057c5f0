"""What the rows of a plan read: each row's prompt, its parts that AND joins, and their texts over a sampler's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..guidance.words import row_prompt
from ..recipe import PassPlan, Row
from .prompts.embeddings import Words
from .prompts.encoding import Embeddings, encode, encode_texts, is_xl, no_words
from .prompts.loras import notes_on_negative, prompt_loras, strip_comments
from .prompts.syntax import Part, parts_of, texts_of
from .samplers.names import find
from .sampling import PromptRow

if TYPE_CHECKING:
    from .generate import Settings


@dataclass(frozen=True)
class PartTexts:
    """(last evaluation, text until then) of one part of a prompt, and how much it counts."""

    texts: tuple[tuple[int, str], ...]
    weight: float = 1.0


def told_prompt(settings: Settings) -> str:
    """The prompt without comments and without its LoRAs."""
    return prompt_loras(settings.prompt)[0]


def evaluations_of(settings: Settings) -> int:
    """By how many evaluations the host counts the steps of prompt editing: two for each of a sampler of second order.
    """
    return settings.steps * find(settings.sampler, settings.scheduler)[0].pattern.per_step


def texts_in_row(plan: PassPlan, row: Row, settings: Settings) -> list[PartTexts]:
    """What a row reads; one part, but of prompts that AND joins. The negative prompt is never joined."""
    text = row_prompt(plan, row, told_prompt(settings), strip_comments(settings.negative_prompt))
    parts = [Part(text, 1.0)] if row.uncond else parts_of(text)
    steps = evaluations_of(settings)
    return [PartTexts(tuple(texts_of(part.text, steps)), part.weight) for part in parts]


def encode_part(pipe, row: Row, part: PartTexts, clip_skip: int, words: Words) -> PromptRow:
    """The row that reads this part, with the text encoders as they are now."""
    texts = [text for _, text in part.texts]
    read = encode_texts(pipe, texts, clip_skip, words)
    if row.uncond and is_xl(pipe) and not any(texts):
        read = {text: no_words(one) for text, one in read.items()}
    edits = tuple((last, read[text]) for last, text in part.texts) if len(texts) > 1 else ()
    return PromptRow(row, read[texts[0]], part.weight, edits)


def of_one_length(pipe, plan: PassPlan, rows: Sequence[PromptRow], clip_skip: int) -> list[PromptRow]:
    """The rows, those that are called together of one length: of parts that AND joins, shorter ones with their last
    column again and again, rows of single LoRAs with empty chunks after them. The mixture's negative prompt stays as
    long as it is. All as in the host."""
    alone = [row for row in plan.rows() if row.uncond][-1]
    together = [one for one in rows if one.row != alone]
    longest = max(one.embeddings.tokens.shape[1] for one in together)
    empty = encode(pipe, "", 1, clip_skip).tokens if plan.own else None

    def longer(read: Embeddings) -> Embeddings:
        missing = longest - read.tokens.shape[1]
        if not missing:
            return read
        more = read.tokens[:, -1:] if empty is None else empty
        return read._replace(tokens=torch.cat([read.tokens, more.repeat(1, missing // more.shape[1], 1)], 1))

    def lengthened(one: PromptRow) -> PromptRow:
        return replace(one, embeddings=longer(one.embeddings),
                       edits=tuple((last, longer(read)) for last, read in one.edits))

    return [one if one.row == alone else lengthened(one) for one in rows]


def notes_on(settings: Settings) -> list[str]:
    """What of the prompts is read otherwise than it may seem."""
    first, *others = parts_of(told_prompt(settings))
    weighted = [f"the prompt ends with a number after a colon, which is read as its weight, {first.weight:g}"
                ] if not others and first.weight != 1 else []
    return [*weighted, *notes_on_negative(settings.negative_prompt)]
