"""Contrastive guidance on a diffusers pipeline: where the subjects' words are, and whose attention is read."""

from __future__ import annotations

import functools
from contextlib import ExitStack

from ..guidance.attention import AttentionMaps
from ..guidance.guide import Guide
from ..guidance.words import mixed_prompt, subjects_in, words_of
from ..mixer.targets import diffusers_unet_layers
from ..recipe import PassPlan
from ..recipe.guidance import GuidanceSettings
from .prompts import encoders, token_chunks, token_ids


def enter_guide(stack: ExitStack, pipe, plan: PassPlan, prompt: str, settings: GuidanceSettings,
                images: int = 1) -> Guide:
    """The guide of so many images of a prompt; its hooks are on the UNet until `stack` closes."""
    tokenizer = encoders(pipe)[0][0]  # SDXL's two encoders share their columns
    subjects = subjects_in(plan)
    mixed = mixed_prompt(subjects, prompt)
    words = words_of(plan, prompt, mixed, functools.partial(token_ids, tokenizer),
                     functools.partial(token_chunks, tokenizer))
    maps = stack.enter_context(AttentionMaps(pipe.unet, diffusers_unet_layers(pipe.unet)))
    guide = Guide(settings, maps, subjects, [plan.loras[k].region for k in plan.subjects])
    guide.words = [words] * images
    return guide
