"""Where LoRAs act on a diffusers pipeline: at their subjects, whose words' attention is read, or in their regions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..guidance.attention import AttentionMaps
from ..guidance.guide import Guide
from ..guidance.layout import Layout
from ..guidance.masked import OwnTexts
from ..guidance.words import Words, subjects_in, words_of
from ..mixer.targets import diffusers_unet_layers
from ..recipe import PassPlan, Recipe, Row
from .prompt_rows import texts_in_row
from .prompts.chunks import token_chunks, token_ids
from .prompts.encoding import encoders
from .prompts.syntax import held_at

if TYPE_CHECKING:
    import torch

    from .generate import Settings
    from .sampling import Rows


class OfPrompt(Layout):
    """The layout of so many images of one prompt, which knows where the words are in each evaluation.

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


class PromptGuide(OfPrompt, Guide):
    """A guide of so many images of one prompt."""


def enter_layout(stack: ExitStack, pipe, rows: Rows, settings: Settings, recipe: Recipe, images: int = 1,
                 ) -> Layout | None:
    """Where the subjects of so many images of a prompt are, a guide where their LoRAs have rows of their own; its hooks
    are on the UNet until `stack` closes. None where no LoRA is kept to a subject. Raises `SciArtError` where a subject
    is not in the prompt, at whatever step."""
    plan = rows.plan
    if not plan.subjects:
        return None
    layers = diffusers_unet_layers(pipe.unet)
    maps = stack.enter_context(AttentionMaps(pipe.unet, layers))
    given = (_where_words_are(pipe, plan, settings), images, recipe.guidance, maps, subjects_in(plan),
             [plan.loras[k].region for k in plan.subjects])
    if plan.own:
        return PromptGuide(*given)
    stack.enter_context(OwnTexts(rows.mixer, layers, [maps, *rows.watching]))
    return OfPrompt(*given, recipe.masking.threshold)


def enter_regions(stack: ExitStack, pipe, rows: Rows, recipe: Recipe, latents: torch.Size) -> None:
    """LoRAs that share a row act in their regions, in latents of this shape, until `stack` closes; nothing where none
    do."""
    if rows.plan.masked and not rows.plan.subjects:
        rows.place_in_regions(recipe.composition.feather, latents)
        stack.enter_context(OwnTexts(rows.mixer, diffusers_unet_layers(pipe.unet), rows.watching))


def _where_words_are(pipe, plan: PassPlan, settings: Settings) -> list[tuple[int, Words]]:
    """(last evaluation, where each subject's words are until then)."""
    tokenizer = encoders(pipe)[0][0]  # SDXL's two encoders share their columns
    (plain,), (mixed,) = (texts_in_row(plan, row, settings) for row in (Row(plain=True), Row()))
    tokens, chunks = functools.partial(token_ids, tokenizer), functools.partial(token_chunks, tokenizer)
    found = functools.lru_cache(maxsize=None)(lambda *texts: words_of(plan, *texts, tokens, chunks))
    ends = sorted({end for part in (plain, mixed) for end, _ in part.texts})
    return [(end, found(held_at(plain.texts, end), held_at(mixed.texts, end))) for end in ends]
