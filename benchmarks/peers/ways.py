"""The peers by name, as `benchmarks.steer` calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sciart_ext.recipe import parse_recipe

from ..tinyworld.sampling import Pictures
from .freefuse import FreeFuse, freefuse_pictures
from .freefuse_masks import Balance
from .prompt_aware import WSwitch, w_composite_pictures, w_switch_pictures

SETTINGS = {
    "freefuse": FreeFuse("up_blocks.0.attentions.2.transformer_blocks.0", stage=0.5,
                         balance=Balance(votes=1.0, pull=0.3), beta=1.0),
    "w-switch": WSwitch(),
    "w-composite": None,
}
"""Chosen on seeds from 20000. Of FreeFuse: the block whose masks are best, as its authors chose theirs; how long its
first stage and how compact its masks are; and β, 1 in its authors' program too. With the settings of `FreeFuse` it
shows both of two in 2 of 24 pictures, with these in 14. Of W-Switch the published period: 5 and 2 showed none of 24, 1
none of 12 of one kind. W-Composite has no settings."""
PEERS = tuple(SETTINGS)


def peer_pictures(pictures: Pictures, variant: str, prompt: str, names: Sequence[str], seeds: Sequence[int],
                  styles: dict[str, float], **settings) -> np.ndarray:
    """Pictures (seeds, side, side, 3) uint8 of individuals that the prompt names, each with its LoRA.

    styles: weights of LoRAs beside them, without words in the prompt. settings: other than the peer's own.
    """
    entries = [{"name": name.replace(" ", "-"), "weight": 1.0} for name in names]
    entries += [{"name": style, "weight": weight} for style, weight in styles.items()]
    compose = {"freefuse": "merge", "w-switch": "switch", "w-composite": "composite"}[variant]
    recipe = parse_recipe({"loras": entries, "compose": compose})
    words = [*names, *[""] * len(styles)]
    if variant == "freefuse":
        return freefuse_pictures(pictures, prompt, names, seeds, recipe, replace(SETTINGS[variant], **settings))
    if variant == "w-switch":
        return w_switch_pictures(pictures, prompt, words, seeds, recipe, replace(SETTINGS[variant], **settings))
    return w_composite_pictures(pictures, prompt, words, seeds, recipe)
