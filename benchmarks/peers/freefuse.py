"""FreeFuse (arXiv 2510.23515, v2): each LoRA acts in its subject's mask, in one row.

First stage: without LoRAs in the UNet, with the prompt that names all individuals, the first third of the steps; at the
last of them one block's attention tells the masks (`freefuse_masks`). Second stage: the whole picture from the same
noise; every LoRA is gated by its mask in the layers of the picture, and by the words of other subjects, on which it
does not act, in the layers that read the prompt; before the softmax of every cross-attention a place of one subject
gets −β on the words of others and +γ on its own.

Formulas restated from the paper; what they leave open is as in the authors' public implementation for SDXL,
from which no code is taken over: the length of the first stage, its block (the first that attends on the way up), that
the text encoder has all LoRAs. Unlike there, the row of the negative prompt, which names nobody, has no bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciart_ext.guidance.attention import probabilities
from sciart_ext.guidance.masks import resized
from sciart_ext.guidance.words import mentions_of
from sciart_ext.mixer.token_gates import RowGates, TokenGates
from sciart_ext.recipe import Recipe, Row
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.generate import workload
from sciart_ext.standalone.prompts.chunks import token_chunks, token_ids
from sciart_ext.standalone.samplers.making import Sampling
from sciart_ext.standalone.sampling import Rows

from ..tinyworld.sampling import Pictures
from .freefuse_masks import AS_PUBLISHED, CORE, TEMPERATURE, Balance, freefuse_masks


@dataclass(frozen=True)
class FreeFuse:
    """The settings; those of the paper where nothing else is said."""

    block: str = "up_blocks.0.attentions.0.transformer_blocks.0"
    stage: float = 1 / 3
    """share of the steps that the first stage has"""
    core: float = CORE
    temperature: float = TEMPERATURE
    balance: Balance = AS_PUBLISHED
    beta: float = 5.0
    gamma: float = 1.0


@torch.no_grad()
def freefuse_pictures(pictures: Pictures, prompt: str, names: Sequence[str], seeds: Sequence[int], recipe: Recipe,
                      settings: FreeFuse) -> np.ndarray:
    """Pictures (seeds, side, side, 3) uint8. names: as the prompt has them, of the recipe's first LoRAs, in their
    order; its other LoRAs act everywhere. recipe: of compose merge."""
    loras = range(len(names))
    _, sampling, rows = pictures.prepared(prompt, recipe, InMasks, loras)
    words = words_of(pictures.pipe.tokenizer, prompt, names)
    made = []
    for chosen in pictures.batches(seeds):
        _, unit = pictures.noise(chosen)
        rows.mixer.choose(workload(rows, 1, unit.shape))
        attention, hidden = first_stage(rows, sampling, unit, words, settings)
        masks = torch.stack([freefuse_masks(*image, settings.core, settings.temperature, settings.balance)
                             for image in zip(attention, hidden)])
        with rows.acting(), WordBias(rows.unet, masks, words, settings):
            rows.begin(WordGates(tuple(loras), resized(masks, tuple(unit.shape[-2:])), words))
            made.append(pictures.decoded(denoise(sampling, rows, unit, None)))
    return np.concatenate(made)


def words_of(tokenizer, prompt: str, names: Sequence[str]) -> Tensor:
    """Which column of the prompt's embedding is whose: bool (names, columns), a name being all of its words."""
    chunks = token_chunks(tokenizer, prompt)
    found = torch.zeros(len(names), 77 * len(chunks), dtype=torch.bool)
    for k, name in enumerate(names):
        for columns in mentions_of(token_ids(tokenizer, name), chunks):
            found[k, columns] = True
    if not bool(found.any(1).all()):
        raise ValueError(f"{prompt!r} does not name all of {', '.join(names)}")
    return found


class InMasks(Rows):
    """Rows of the mixture whose first LoRAs have masks, once the second stage begins; before it no LoRA acts."""

    has_begun = False

    def begin(self, gates: WordGates) -> None:
        """The second stage begins, within `acting`."""
        self.mixer.token_gates, self.has_begun = gates, True

    def set_gates(self, rows: Sequence[Row], progress: float, images: int) -> None:
        if not self.has_begun:
            self.mixer.set_gates([[0.0] * self.mixer.count])
            return
        views = [image + images * row.uncond for row in rows for image in range(images)]
        self.mixer.set_gates([own for row in rows for own in self.gates(progress, row, images)], views=views)


class _Enough(Exception):
    """Ends the first stage."""


def first_stage(rows: InMasks, sampling: Sampling, unit: Tensor, words: Tensor,
                settings: FreeFuse) -> tuple[Tensor, Tensor]:
    """Cross-attention (images, subjects, h, w), a mean over heads and a subject's words, and the self-attention's
    output (images, places, channels), of the row with the prompt at the stage's last step."""
    def until(done: int, steps: int) -> None:
        if done >= round(settings.stage * steps):
            raise _Enough

    rows.has_begun = False
    with rows.acting(), BlockSeen(rows.unet.get_submodule(settings.block)) as seen:
        try:
            denoise(sampling, rows, unit, None, on_step=until)
        except _Enough:
            pass
    attention, hidden = (part[:len(unit)] for part in (seen.attention, seen.hidden))
    maps = torch.stack([attention[..., own].mean(-1) for own in words.to(attention.device)], 1)
    side = round(maps.shape[-1] ** 0.5)
    return maps.unflatten(-1, (side, side)), hidden


class BlockSeen:
    """What a transformer block's attentions made of the last call, while in context: `attention` (rows, places,
    tokens), `hidden` (rows, places, channels)."""

    def __init__(self, block: nn.Module):
        self.block = block
        self._handles: list = []

    def __enter__(self) -> BlockSeen:
        cross = self.block.attn2
        self._handles = [
            self.block.attn1.register_forward_hook(lambda module, args, output: setattr(self, "hidden", output)),
            cross.to_q.register_forward_hook(lambda module, args, output: setattr(self, "_queries", output)),
            cross.to_k.register_forward_hook(self._attend)]
        return self

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()

    def _attend(self, module: nn.Module, args: tuple, keys: Tensor) -> None:
        cross = self.block.attn2
        self.attention = probabilities(self._queries, keys, cross.heads, cross.scale)


class WordGates(TokenGates):
    """Token gates that keep each LoRA off the words of the others too. Views: each image's row with the prompt, then
    each one's without, whose words are nobody's. words: bool (loras, columns)."""

    def __init__(self, loras: Sequence[int], masks: Tensor, words: Tensor):
        super().__init__(loras, torch.cat([masks, masks]))
        acts = (words | ~words.any(0)).float().to(masks.device)
        self._acts = torch.stack([acts, torch.ones_like(acts)]).repeat_interleave(len(masks), 0)

    def _made(self, views: tuple[int, ...]) -> RowGates:
        chosen = torch.tensor(views, device=self.masks.device)
        return _WordRowGates(self.loras, self.masks[chosen], self._acts[chosen])


class _WordRowGates(RowGates):
    """acts: (rows, loras, columns)."""

    def __init__(self, loras: Sequence[int], masks: Tensor, acts: Tensor):
        super().__init__(loras, masks, masks.cpu(), texts=1, rows=len(masks))
        self._acts = acts

    def _of_text(self) -> Tensor:
        return self._acts


class WordBias:
    """Adds to the scores of every cross-attention of a UNet while in context; the rows of a call are the images' with
    the prompt, then the others. masks: (images, subjects, h, w), square; words: bool (subjects, columns)."""

    def __init__(self, unet: nn.Module, masks: Tensor, words: Tensor, settings: FreeFuse):
        self._unet = unet
        self._masks = masks.float()
        words = words.to(masks.device)
        self._told = word_bias(words, settings.beta, settings.gamma)
        self._stack = ExitStack()
        self._made: dict[tuple[int, int], Tensor] = {}

    def __enter__(self) -> WordBias:
        for name, module in self._unet.named_modules():
            if name.endswith("attn2"):
                self._stack.callback(module.register_forward_pre_hook(self._add, with_kwargs=True).remove)
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def _add(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        rows, places = args[0].shape[:2]
        if (rows, places) not in self._made:
            side = round(places ** 0.5)
            masks = F.interpolate(self._masks, (side, side), mode="area").flatten(2)
            bias = torch.einsum("isp,sj->ipj", masks, self._told).to(args[0].dtype)
            self._made[rows, places] = torch.cat([bias, torch.zeros_like(bias).repeat(rows // len(bias) - 1, 1, 1)])
        return args, {**kwargs, "attention_mask": self._made[rows, places]}


def word_bias(words: Tensor, beta: float, gamma: float) -> Tensor:
    """bool (subjects, columns) → (subjects, columns): +γ on the own words, −β on those of others, 0 on nobody's."""
    others = words.any(0) & ~words
    return gamma * words.float() - beta * others.float()
