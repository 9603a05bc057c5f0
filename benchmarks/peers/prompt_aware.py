"""W-Switch and W-Composite (arXiv 2606.03792): Switch and Composite, each LoRA weighted by what its words mean.

e(text) is the mean of the text encoder's output over its columns, without LoRAs, P the prompt, T_k the words of LoRA k:

    W-Switch      w_k ∝ max(1 − cos(e(P), e(P without T_k)), 0.05)
                  turns of max(1, round(period · w_k / max w)) steps, one LoRA after another
    W-Composite   w_k ∝ cos(e(P), e(T_k));  Σ_k w_k of the LoRAs' predictions after classifier-free guidance

Of the paper's text only the abstract was at hand: formulas and constants are restated from what the authors' public
implementation computes, from which no code is taken over. There the last steps of W-Switch are kept for the one LoRA
that is a person (5 of 100); here, where all are subjects alike, none are (`tail`). A LoRA without words, as a style's,
has 0.1 before the weights of W-Switch are brought to a sum of 1, and no part of W-Composite, as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sciart_ext.compose.fusion import Fusion, Weights
from sciart_ext.recipe import Recipe, Row
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.generate import workload
from sciart_ext.standalone.prompts.encoding import encode
from sciart_ext.standalone.sampling import Rows

from ..tinyworld.sampling import Pictures

LEAST, WORDLESS = 0.05, 0.1


@dataclass(frozen=True)
class WSwitch:
    """period: steps of the weightiest LoRA's turn; tail: steps that the first LoRA has in the end."""

    period: int = 5
    tail: int = 0


Encode = Callable[[str], Tensor]
"""text → e(text) (channels,)"""


def importance_by_removal(encoded: Encode, prompt: str, words: Sequence[str]) -> list[float]:
    """Weights of W-Switch; their sum is 1. words: of each LoRA, empty where it has none."""
    whole = encoded(prompt)
    found = [max(1 - _cosine(whole, encoded(without(prompt, one))), LEAST) if one else WORDLESS for one in words]
    return [weight / sum(found) for weight in found]


def importance_by_likeness(encoded: Encode, prompt: str, words: Sequence[str]) -> list[float]:
    """Weights of W-Composite; their sum is 1."""
    whole = encoded(prompt)
    found = [_cosine(whole, encoded(one)) if one else 0.0 for one in words]
    return [weight / sum(found) for weight in found]


def without(prompt: str, words: str) -> str:
    """The prompt without these words."""
    return " ".join(re.sub(rf"\b{re.escape(words)}\b", "", prompt, flags=re.IGNORECASE).split())


def turns(weights: Sequence[float], steps: int, settings: WSwitch) -> list[int]:
    """Which LoRA acts at each step. As in Switch here and there, the first turn is one step longer: LoRAs are changed
    after a step."""
    lengths = [max(1, round(settings.period * weight / max(weights))) for weight in weights]
    cycle = [k for k, length in enumerate(lengths) for _ in range(length)]
    order = [cycle[step % len(cycle)] for step in range(steps)]
    order[steps - settings.tail:] = [0] * settings.tail
    return [order[max(step - 1, 0)] for step in range(steps)]


class Turns(Rows):
    """Rows in which one LoRA acts at a time; `order` is to be set before they are called."""

    order: ClassVar[Sequence[int]] = ()

    def gates(self, progress: float, row: Row, images: int) -> list[tuple[float, ...]]:
        now = self.order[round(progress * (self.plan.steps - 1))]
        return [tuple(lora.weight if k == now else 0.0 for k, lora in enumerate(self.plan.loras))] * images


class Weighted(Fusion):
    """Every pair counts with its LoRA's weight."""

    def __init__(self, weights: Sequence[float]):
        self._weights = weights

    def weights(self, cond: Tensor, progress: float, noise: Callable[[Tensor], Tensor]) -> Weights:
        same = torch.tensor(self._weights, device=cond.device).view(1, -1, 1, 1)
        return Weights(same, same)


@torch.no_grad()
def w_switch_pictures(pictures: Pictures, prompt: str, words: Sequence[str], seeds: Sequence[int], recipe: Recipe,
                      settings: WSwitch) -> np.ndarray:
    """Pictures (seeds, side, side, 3) uint8. words: of each LoRA of the recipe, which is of compose switch."""
    prepared = pictures.prepared(prompt, recipe, Turns)
    weights = importance_by_removal(mean_encoding(pictures), prompt, words)
    prepared.rows.order = turns(weights, prepared.sampling.steps, settings)
    return _pictures(pictures, prepared, seeds, None)


@torch.no_grad()
def w_composite_pictures(pictures: Pictures, prompt: str, words: Sequence[str], seeds: Sequence[int],
                         recipe: Recipe) -> np.ndarray:
    """The same of a recipe of compose composite."""
    weights = importance_by_likeness(mean_encoding(pictures), prompt, words)
    return _pictures(pictures, pictures.prepared(prompt, recipe), seeds, Weighted(weights))


def mean_encoding(pictures: Pictures) -> Encode:
    """e(text) of the model."""
    return lambda text: encode(pictures.pipe, text, 1).tokens[0].float().mean(0)


def _pictures(pictures: Pictures, prepared, seeds: Sequence[int], fusion: Fusion | None) -> np.ndarray:
    _, sampling, rows = prepared
    made = []
    for chosen in pictures.batches(seeds):
        noise, unit = pictures.noise(chosen)
        rows.mixer.choose(workload(rows, 1, unit.shape))
        with rows.acting():
            made.append(pictures.decoded(denoise(sampling, rows, unit, noise, fusion)))
    return np.concatenate(made)


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one, other, dim=0))
