"""Contrastive guidance on a diffusers pipeline: the rows' prompts and where the subjects' words are in them."""

from __future__ import annotations

import functools
from contextlib import ExitStack

from ..guidance.attention import AttentionMaps
from ..guidance.guide import Guide
from ..guidance.settings import GuidanceSettings
from ..guidance.words import own_prompt, subjects_in, words_of
from ..mixer.targets import diffusers_unet_layers
from ..plan import PassPlan, Row
from .prompts import encoders, token_chunks, token_ids


def row_prompt(plan: PassPlan, row: Row, prompt: str, negative_prompt: str) -> str:
    """What a row's cross-attention reads: the prompt, with its LoRA's trigger in a LoRA's own row."""
    if row.uncond or row.subject is None:
        return negative_prompt if row.uncond else prompt
    subjects = subjects_in(plan)
    return own_prompt(subjects[plan.subjects.index(row.subject)], subjects, prompt)


def enter_guide(stack: ExitStack, pipe, plan: PassPlan, prompt: str, settings: GuidanceSettings,
                images: int = 1) -> Guide:
    """The guide of so many images of a prompt; its hooks are on the UNet until `stack` closes."""
    tokenizer = encoders(pipe)[0][0]  # SDXL's two encoders share their columns
    words = words_of(plan, prompt, functools.partial(token_ids, tokenizer), functools.partial(token_chunks, tokenizer))
    maps = stack.enter_context(AttentionMaps(pipe.unet, diffusers_unet_layers(pipe.unet)))
    guide = Guide(settings, maps, [plan.loras[k].region for k in plan.subjects])
    guide.words = [words] * images
    return guide
