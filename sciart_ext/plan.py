"""A recipe compiled for a number of steps: which gate each LoRA has at which step, in which rows.

The plan knows no host, no model and no file: gates are numbers, the mixer carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .recipe import LoraEntry, Recipe, _Weighted
from .schedule import step_progress


@dataclass(frozen=True)
class Row:
    """One row of the batch per picture; without more said, the mixture's, where every LoRA acts."""

    uncond: bool = False
    subject: int | None = None
    """the index of the LoRA whose own row it is: of those with a subject, only this one acts"""
    plain: bool = False
    """no LoRA with a subject acts"""


@dataclass(frozen=True)
class PassPlan:
    """The gates of one sampling pass (the first, or the hires pass)."""

    loras: tuple[LoraEntry, ...]
    weights: tuple[_Weighted, ...]
    te_weights: tuple[float, ...]
    steps: int
    compose: str = "merge"
    silent: frozenset[int] = frozenset()
    """indices of LoRAs that do not act, while everything else stays as if they did: counterfactuals"""

    @property
    def subjects(self) -> tuple[int, ...]:
        """Indices of the LoRAs that have rows of their own."""
        if self.compose != "contrastive":
            return ()
        return tuple(k for k, lora in enumerate(self.loras) if lora.subject)

    def with_only(self, one: int) -> PassPlan:
        """The plan in which only LoRA k acts whose bit k is in `one`."""
        return replace(self, silent=frozenset(k for k in range(len(self.loras)) if not one >> k & 1))

    def rows(self) -> tuple[Row, ...]:
        """The rows of one picture: the mixture's; each subject's own and the negative prompt's for those; the negative
        prompt's for the mixture."""
        own = (*(Row(subject=k) for k in self.subjects), Row(uncond=True, plain=True)) if self.subjects else ()
        return (Row(), *own, Row(uncond=True))

    def encoded_rows(self) -> tuple[Row, ...]:
        """Rows whose prompts are needed: `rows`, and where there are subjects the plain one, for the look ahead."""
        return (*self.rows(), Row(plain=True)) if self.subjects else self.rows()

    def gates(self, progress: float, row: Row = Row()) -> tuple[float, ...]:
        """One gate per LoRA at `progress` in this row."""
        return tuple(weight.at(progress) if self._acts(k, row) else 0.0 for k, weight in enumerate(self.weights))

    def te_gates(self, row: Row = Row()) -> tuple[float, ...]:
        """One gate per LoRA while this row's prompt is encoded."""
        return tuple(weight if self._acts(k, row) else 0.0 for k, weight in enumerate(self.te_weights))

    def _acts(self, k: int, row: Row) -> bool:
        if k in self.silent or (k in self.subjects and (row.plain or row.subject not in (None, k))):
            return False
        return self.loras[k].apply_to in ("both", "uncond" if row.uncond else "cond")

    def progress(self) -> list[float]:
        """Progress of each step."""
        return [step_progress(step, self.steps) for step in range(self.steps)]

    @property
    def rows_differ(self) -> bool:
        """Whether the gates of the rows differ."""
        return bool(self.subjects) or any(lora.apply_to != "both" for lora in self.loras)

    def changes(self) -> int:
        """How many times over the pass the gates change; at least 1."""
        seen = [tuple(self.gates(p, row) for row in self.rows()) for p in self.progress()]
        return max(sum(1 for i, gates in enumerate(seen) if i == 0 or gates != seen[i - 1]), 1)


@dataclass(frozen=True)
class Plan:
    """Both passes of a recipe; `hires` is None where there is no hires pass."""

    first: PassPlan
    hires: PassPlan | None = None

    def acting(self, one: int) -> int:
        """The set of LoRAs, bit k for LoRA k, without those that do nothing in it at any step of any pass."""
        def acts(k: int) -> bool:
            return any(each.te_weights[k] or any(each.weights[k].at(progress) for progress in each.progress())
                       for each in (self.first, self.hires) if each is not None)

        return sum(1 << k for k in range(len(self.first.loras)) if one >> k & 1 and acts(k))

    def table(self) -> dict:
        """The gates per step as numbers, for the API and the command line."""
        return {"first": _pass_table(self.first), "hires": _pass_table(self.hires) if self.hires else None}


def compile_plan(recipe: Recipe, steps: int, hires_steps: int = 0) -> Plan:
    """The plan of a recipe whose entries are resolved (`presets.resolve`), for so many steps a pass."""
    loras = tuple(recipe.loras)
    te_weights = tuple(_first_given(lora.te_weight, lora.largest()) for lora in loras)
    first = PassPlan(loras, loras, te_weights, steps, recipe.compose)
    if not hires_steps:
        return Plan(first)
    end = step_progress(steps - 1, steps)
    weights, hires_te = [], []
    for lora, te_weight in zip(loras, te_weights):
        own = lora.hires
        given = own is not None and own.at(0.0) is not None
        weights.append(own if given else _Weighted(weight=lora.at(end)))
        hires_te.append(_first_given(own.te_weight if own else None, te_weight))
    compose = recipe.compose if recipe.guidance.hires else "merge"
    return Plan(first, PassPlan(loras, tuple(weights), tuple(hires_te), hires_steps, compose))


def _first_given(value: float | None, default: float) -> float:
    return default if value is None else value


def _pass_table(plan: PassPlan) -> dict:
    progress = plan.progress()
    return {
        "steps": plan.steps,
        "progress": [round(p, 6) for p in progress],
        "loras": [
            {"name": lora.label, "apply_to": lora.apply_to, "te_weight": te_weight,
             "blocks": dict(lora.blocks), "weights": [round(weight.at(p), 6) for p in progress]}
            for lora, weight, te_weight in zip(plan.loras, plan.weights, plan.te_weights)
        ],
    }
