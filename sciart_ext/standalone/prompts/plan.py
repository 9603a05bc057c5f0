"""The prompt's own LoRAs beside a recipe's: as in the WebUI they act in all rows and all steps, whatever the recipe."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ...errors import SciArtError
from ...lora.file import LoraFile, load_lora
from ...lora.kinds import Delta
from ...lora.low_rank import LowRank, Tucker
from ...lora.relative import Decomposed
from ...recipe import PassPlan, Recipe, compile_plan
from ...recipe.recipe import LoraEntry
from .check import check_joining
from .loras import find_prompt_loras, prompt_loras


@dataclass(frozen=True)
class PromptedPlan(PassPlan):
    """A recipe's plan with the prompt's LoRAs after the recipe's own."""

    prompted: int = 0
    """how many they are"""

    @property
    def _mixed(self) -> int:
        return len(self.loras) - self.prompted

    @functools.cached_property
    def own(self) -> tuple[int, ...]:
        return PassPlan(self.loras[:self._mixed], (), (), self.steps, self.compose).own

    def weight(self, k: int, progress: float, uncond: bool = False) -> float:
        return super().weight(k, progress, uncond) if k < self._mixed else self.weights[k].weight

    def with_only(self, one: int) -> PromptedPlan:
        return replace(self, silent=frozenset(k for k in range(self._mixed) if not one >> k & 1))


def load_prompt_loras(prompt: str, folder: Path | None) -> list[LoraFile]:
    """The files of the LoRAs that a prompt names. Raises `SciArtError`."""
    return [_cut(load_lora(path, one.name), one.rank) for one, path in find_prompt_loras(prompt, folder)]


def plan_with_prompt(recipe: Recipe, prompt: str, steps: int) -> PassPlan:
    """The plan of a resolved recipe's first pass, in which the prompt's LoRAs act too. Raises `SciArtError`."""
    mixed = recipe.loras if recipe.enabled else []
    plan = compile_plan(recipe.copy(update={"loras": mixed}), steps).first
    prompted = prompt_loras(prompt)[1]
    if not prompted:
        return plan
    check_joining(recipe, prompted)
    entries = tuple(LoraEntry(name=one.name, weight=one.weight, te_weight=one.te_weight) for one in prompted)
    te_weights = tuple(one.te_weight for one in prompted)
    return PromptedPlan(**{**{field.name: getattr(plan, field.name) for field in fields(plan)},
                           "loras": plan.loras + entries, "weights": plan.weights + entries,
                           "te_weights": plan.te_weights + te_weights,
                           "negative_weights": plan.negative_weights + entries,
                           "negative_te_weights": plan.negative_te_weights + te_weights}, prompted=len(entries))


def notes_on_both(recipe: Recipe, prompt: str) -> list[str]:
    """Of LoRAs that the prompt and the recipe have."""
    mixed = {lora.name for lora in recipe.loras} if recipe.enabled else set()
    return [f"{one.name} is also in the prompt as {one.tag}: both weights act"
            for one in prompt_loras(prompt)[1] if one.name in mixed]


def check_loaded(plan: PassPlan, loras: Sequence[LoraFile]) -> None:
    """Refuses a plan of which some files are not there."""
    if len(plan.loras) != len(loras):
        raise SciArtError("loras", f"{len(loras)} files for {len(plan.loras)} LoRAs; accepted: one for each of the "
                                   "recipe, then one for each of the prompt")


def _cut(lora: LoraFile, rank: int | None) -> LoraFile:
    """The LoRA with no more than this rank in each layer, as the WebUI's `dyn` does it: the first so many directions of
    plain LoRAs, at the scale that they had."""
    if rank is None:
        return lora
    return replace(lora, layers={name: _cut_layer(delta, rank) for name, delta in lora.layers.items()})


def _cut_layer(delta: Delta, rank: int) -> Delta:
    if isinstance(delta, Decomposed):
        return replace(delta, inner=_cut_layer(delta.inner, rank))
    if not isinstance(delta, LowRank) or isinstance(delta, Tucker):
        return delta
    return LowRank(delta.down[:rank], delta.up[:, :rank], delta.scale)
