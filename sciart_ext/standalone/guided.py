"""Contrastive guidance on a diffusers pipeline: where the subjects' words are, and whose attention is read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..guidance.attention import AttentionMaps
from ..guidance.guide import Guide
from ..guidance.words import Words, subjects_in, words_of
from ..mixer.targets import diffusers_unet_layers
from ..recipe import PassPlan, Row
from ..recipe.guidance import GuidanceSettings
from .prompt_rows import texts_in_row
from .prompts.chunks import token_chunks, token_ids
from .prompts.encoding import encoders
from .prompts.syntax import held_at

if TYPE_CHECKING:
    from .generate import Settings


class PromptGuide(Guide):
    """A guide of so many images of one prompt, which knows where the words are in each evaluation.

    words: (last evaluation, where they are until then).
    """

    def __init__(self, words: Sequence[tuple[int, Words]], images: int, *arguments):
        super().__init__(*arguments)
        self._edits, self._images = words, images
        self._evaluation = 0
        self.words = self._now()

    def evaluated(self) -> None:
        super().evaluated()
        self._evaluation += 1
        self.words = self._now()

    def _now(self) -> list[Words]:
        return [held_at(self._edits, self._evaluation)] * self._images


def enter_guide(stack: ExitStack, pipe, plan: PassPlan, settings: Settings, guidance: GuidanceSettings,
                images: int = 1) -> Guide:
    """The guide of so many images of a prompt; its hooks are on the UNet until `stack` closes. Raises `SciArtError`
    where a subject is not in the prompt, at whatever step."""
    maps = stack.enter_context(AttentionMaps(pipe.unet, diffusers_unet_layers(pipe.unet)))
    return PromptGuide(_where_words_are(pipe, plan, settings), images, guidance, maps, subjects_in(plan),
                       [plan.loras[k].region for k in plan.subjects])


def _where_words_are(pipe, plan: PassPlan, settings: Settings) -> list[tuple[int, Words]]:
    tokenizer = encoders(pipe)[0][0]  # SDXL's two encoders share their columns
    (plain,), (mixed,) = (texts_in_row(plan, row, settings) for row in (Row(plain=True), Row()))
    tokens, chunks = functools.partial(token_ids, tokenizer), functools.partial(token_chunks, tokenizer)
    found = functools.lru_cache(maxsize=None)(lambda *texts: words_of(plan, *texts, tokens, chunks))
    ends = sorted({end for part in (plain, mixed) for end, _ in part.texts})
    return [(end, found(held_at(plain.texts, end), held_at(mixed.texts, end))) for end in ends]
