"""What the look ahead of masked pictures sees on the tiny world, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from sciart_ext.guidance.look_ahead import EVALUATIONS, FROM, attention_ahead
from sciart_ext.standalone.subjects import enter_layout
from sciart_ext.world.scenes import INDIVIDUALS, KINDS

from .sampling import Pictures
from .steering import guided_recipe, prompt_of

START = 999
"""the training time that pure noise has"""


@torch.no_grad()
def seen_ahead(pictures: Pictures, names: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """The attention of the words of these individuals' kinds in each evaluation of the look ahead, from the noises of
    so many seeds as are made at once: (evaluations, seeds, subjects, h, w)."""
    recipe = guided_recipe(names, {}, False, "masked")
    prepared = pictures.prepared(prompt_of([KINDS[INDIVIDUALS[name]] for name in names]), recipe)
    rows, seen = prepared.rows, []
    _, unit = pictures.noise(seeds)
    with ExitStack() as stack:
        stack.enter_context(rows.acting())
        layout = enter_layout(stack, pictures.pipe, rows, prepared.settings, recipe, len(seeds))

        def attended(latents: Tensor, time: int, progress: float) -> Tensor:
            layout.maps.record(len(latents))
            rows.call_plain(latents, time, progress)
            seen.append(layout.words[0].plain_means(layout.maps.maps()))
            return seen[-1]

        def denoised(latents: Tensor, time: int, progress: float) -> Tensor:
            attended(latents, time, progress)
            return rows.denoised(latents, time, progress)

        attention_ahead(unit, START, rows.alphas, denoised, attended, lambda: seen[-1])
    return torch.stack(seen)


def looked_at(seen: Tensor) -> Tensor:
    """Of `seen_ahead` the mean of the evaluations that the look ahead goes by: (seeds, subjects, h, w)."""
    return torch.stack([one for i, one in enumerate(seen) if i / (EVALUATIONS - 1) >= FROM]).mean(0)


class LastOutput:
    """What a module gave at its last call, while in context: `value`."""

    def __init__(self, module: nn.Module):
        self._module = module

    def __enter__(self) -> LastOutput:
        self._handle = self._module.register_forward_hook(
            lambda module, args, output: setattr(self, "value", output))
        return self

    def __exit__(self, *exception) -> None:
        self._handle.remove()
