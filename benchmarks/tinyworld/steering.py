"""Two and three individuals in one picture: which compositions show them all, and what becomes of a style."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciart_ext.recipe import Recipe, parse_recipe
from sciart_ext.world.oracle import Oracle
from sciart_ext.world.scenes import INDIVIDUALS, KINDS

from ..peers.ways import PEERS, peer_pictures
from .sampling import Guided, Pictures

CASES = {
    "two": (("red striped rocket", "yellow visor robot"), ("purple submarine", "ringed blue planet")),
    "same_class": (("red striped rocket", "golden rocket"),),
    "three": (("red striped rocket", "yellow visor robot", "purple submarine"),),
}
# contrastive guidance whole, and without a part of it; and masks in one row; both from one of several noises too
NOISES = 4
GUIDED: dict[str, dict] = {"masks": {"strength": 0.0}, "update": {"masks": False}, "contrastive": {}, "masked": {},
                           "contrastive_noises": {"noises": NOISES}, "masked_noises": {"noises": NOISES}}
COMPOSED = ("merge", "switch", "composite")
STYLE, STYLE_WEIGHT = "watercolor", 0.7
FIRST_SEED = 10_000
"""settings were chosen on others"""


@dataclass(frozen=True)
class Made:
    """For each seed: whether every individual was there, how strong the style was, what guidance did."""

    by_prompt: dict[str, list[bool]]
    style: list[float]
    guided: list[Guided]
    laid_out: list[bool]
    """whether as many of each kind were there as were asked for, whoever they were"""

    @property
    def present(self) -> list[bool]:
        return [there for outcomes in self.by_prompt.values() for there in outcomes]


def make(pictures: Pictures, oracle: Oracle, seeds: Sequence[int], case: str, variant: str, styled: bool,
         **guidance) -> Made:
    """The seeds are shared out among the groups of the case. guidance: overrides the variant's settings, a peer's too.
    """
    by_prompt, style, guided, laid_out = {}, [], [], []
    for names, chosen in zip(CASES[case], np.array_split(np.array(seeds), len(CASES[case]))):
        made, more = pictures_of(pictures, chosen, names, variant, styled, **guidance)
        guided += more
        readings = oracle.read(made)
        by_prompt[prompt_of(names)] = [all(reading.count(individual=name) for name in names) for reading in readings]
        style += [reading.styles[STYLE] for reading in readings]
        kinds = [KINDS[INDIVIDUALS[name]] for name in names]
        laid_out += [all(reading.count(kind) >= kinds.count(kind) for kind in kinds) for reading in readings]
    return Made(by_prompt, style, guided, laid_out)


def layouts(pictures: Pictures, oracle: Oracle, seeds: Sequence[int], case: str) -> list[bool]:
    """Whether the base model alone paints as many of each kind as are asked for, from the noise of each seed."""
    found = []
    for names, chosen in zip(CASES[case], np.array_split(np.array(seeds), len(CASES[case]))):
        kinds = [KINDS[INDIVIDUALS[name]] for name in names]
        readings = oracle.read(pictures.make(prompt_of(kinds), chosen))
        found += [all(reading.count(kind) >= kinds.count(kind) for kind in kinds) for reading in readings]
    return found


def pictures_of(pictures: Pictures, seeds: Sequence[int], names: Sequence[str], variant: str, styled: bool,
               **guidance) -> tuple[np.ndarray, list[Guided]]:
    """Pictures (seeds, side, side, 3) of these individuals, and what guidance did where there was any."""
    if variant in COMPOSED:
        weights = dict.fromkeys(names, 1.0) | ({STYLE: STYLE_WEIGHT} if styled else {})
        return pictures.make(prompt_of(names), seeds, weights, variant), []
    if variant in PEERS:
        styles = {STYLE: STYLE_WEIGHT} if styled else {}
        return peer_pictures(pictures, variant, prompt_of(names), names, seeds, styles, **guidance), []
    recipe = guided_recipe(names, {"show": True, **GUIDED[variant], **guidance}, styled,
                           "masked" if variant.startswith("masked") else "contrastive")
    return pictures.by_recipe(prompt_of([KINDS[INDIVIDUALS[name]] for name in names]), seeds, recipe)


def overlap(attention: Tensor, threshold: float = 0.3) -> float:
    """Mean IoU, over pairs of subjects, of where their attention (subjects, h, w) reaches this share of its largest."""
    contrast = attention - attention.amin((-2, -1), keepdim=True)
    covered = contrast >= threshold * contrast.amax((-2, -1), keepdim=True).clamp(min=1e-8)
    pairs = [(covered[a] & covered[b]).sum() / (covered[a] | covered[b]).sum().clamp(min=1)
             for a, b in itertools.combinations(range(len(covered)), 2)]
    return float(torch.stack(pairs).mean())


def prompt_of(names: Sequence[str]) -> str:
    """'a rocket and a robot in space'."""
    return f"{', '.join(f'a {name}' for name in names[:-1])} and a {names[-1]} in space"


def guided_recipe(names: Sequence[str], guidance: dict, styled: bool, compose: str = "contrastive", **more) -> Recipe:
    """Each individual's LoRA about its kind's word, triggered by the words before that in its name."""
    loras: list[dict] = []
    for name in names:
        kind = KINDS[INDIVIDUALS[name]]
        loras.append({"name": name.replace(" ", "-"), "weight": 1.0, "subject": kind,
                      "trigger": name.removesuffix(kind).strip()})
    if styled:
        loras.append({"name": STYLE, "weight": STYLE_WEIGHT})
    return parse_recipe({"loras": loras, "compose": compose, "guidance": guidance, **more})
