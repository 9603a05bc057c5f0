"""A recipe compiled for a number of steps: which gate each LoRA has at which step, in which rows.

The plan knows no host, no model and no file: gates are numbers, the mixer carries them out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .layer_factors import Factor, LayerFactors, varying_factors
from .schedule import step_progress

if TYPE_CHECKING:
    from .recipe import LoraEntry, Recipe, _Weighted

SEEN_AHEAD = ("contrastive", "masked")
"""ways to compose whose subjects a look ahead finds"""


@dataclass(frozen=True)
class Row:
    """One row of the batch per picture; without more said, the mixture's, where every LoRA acts."""

    uncond: bool = False
    own: int | None = None
    """the index of the LoRA whose own row it is: of those with rows of their own, only this one acts"""
    plain: bool = False
    """no LoRA with rows or a mask of its own acts"""


@dataclass(frozen=True)
class Pair:
    """A row with the prompt and the row with the negative prompt that belongs to it: one prediction."""

    cond: Row = Row()
    uncond: Row = Row(uncond=True)


@dataclass(frozen=True)
class PassPlan:
    """The gates of one sampling pass (the first, or the hires pass)."""

    loras: tuple[LoraEntry, ...]
    weights: tuple[_Weighted, ...]
    te_weights: tuple[float, ...]
    steps: int
    compose: str = "merge"
    turns: tuple[int, ...] = ()
    """of compose switch: indices of the LoRAs in the order in which they act"""
    period: int = 1
    """of compose switch: steps of a turn"""
    silent: frozenset[int] = frozenset()
    """indices of LoRAs that do not act, while everything else stays as if they did: counterfactuals"""
    negative_weights: tuple[_Weighted, ...] = ()
    """in the negative prompt; empty: as in the prompt"""
    negative_te_weights: tuple[float, ...] = ()
    """while the negative prompt is encoded; empty: as in the prompt"""
    one_row: bool = False
    """of compose regions: whether the regions share the rows of a plain picture"""

    @property
    def own(self) -> tuple[int, ...]:
        """Indices of the LoRAs that have rows of their own."""
        loras = enumerate(self.loras)
        if self.compose == "contrastive":
            return tuple(k for k, lora in loras if lora.subject)
        if self.compose == "regions" and not self.one_row:
            return tuple(k for k, lora in loras if lora.region)
        if self.compose == "spatial" or (self.compose == "composite" and len(self.loras) > 1):
            return tuple(k for k, _ in loras)
        return ()

    @property
    def masked(self) -> tuple[int, ...]:
        """Indices of the LoRAs that have masks in rows which they share with others."""
        if self.compose == "masked":
            return tuple(k for k, lora in enumerate(self.loras) if lora.subject)
        if self.compose == "regions" and self.one_row:
            return tuple(k for k, lora in enumerate(self.loras) if lora.region)
        return ()

    @property
    def subjects(self) -> tuple[int, ...]:
        """Indices of the LoRAs that are kept to their subjects."""
        return {"contrastive": self.own, "masked": self.masked}.get(self.compose, ())

    def with_only(self, one: int) -> PassPlan:
        """The plan in which only LoRA k acts whose bit k is in `one`."""
        return replace(self, silent=frozenset(k for k in range(len(self.loras)) if not one >> k & 1))

    def pairs(self) -> tuple[Pair, ...]:
        """What one picture's prediction is made of. Where not all of it counts, the first is what does."""
        if not self.own:
            return (Pair(),)
        if self.compose == "contrastive":
            return (Pair(), *(Pair(Row(own=k), Row(uncond=True, plain=True)) for k in self.own))
        base = () if self.compose == "composite" else (Pair(Row(plain=True), Row(uncond=True, plain=True)),)
        return (*base, *(Pair(self._own_row(k), self._own_row(k, uncond=True)) for k in self.own))

    def _own_row(self, k: int, uncond: bool = False) -> Row:
        """LoRA k's; where it does not act in it, the one without LoRAs of their own, which others may share."""
        acts = self.loras[k].apply_to in ("both", "uncond" if uncond else "cond")
        return Row(uncond=uncond, own=k) if acts else Row(uncond=uncond, plain=True)

    def rows(self) -> tuple[Row, ...]:
        """The rows of one picture, each once: those with the prompt, then the others, the first pair's last."""
        pairs = self.pairs()
        return (*dict.fromkeys(pair.cond for pair in pairs),
                *reversed(dict.fromkeys(pair.uncond for pair in pairs)))

    def encoded_rows(self) -> tuple[Row, ...]:
        """Rows whose prompts are needed: `rows`, and where there are subjects the plain ones, for the look ahead."""
        plain = (Row(plain=True), Row(uncond=True, plain=True)) if self.subjects else ()
        return tuple(dict.fromkeys((*self.rows(), *plain)))

    def looking(self) -> tuple[int, ...]:
        """Which of `rows`, by number, look at the prompt for the picture: where they look is where words are seen."""
        if self.compose == "contrastive":
            return (0,)
        pairs = self.pairs()[1 if self.compose == "spatial" else 0:]
        return tuple(dict.fromkeys(self.rows().index(pair.cond) for pair in pairs))

    def weight(self, k: int, progress: float, uncond: bool = False) -> float:
        """LoRA k's weight at `progress` in a row where it acts; 0 while another has its turn."""
        if self.compose == "switch" and self._whose_turn(progress) != k:
            return 0.0
        weights = self.negative_weights if uncond and self.negative_weights else self.weights
        return weights[k].at(progress)

    def te_weight(self, k: int, uncond: bool = False) -> float:
        """LoRA k's weight while the prompt, or the negative one, is encoded."""
        weights = self.negative_te_weights if uncond and self.negative_te_weights else self.te_weights
        return weights[k]

    def has_negative(self, k: int) -> bool:
        """Whether LoRA k has other weights in the negative prompt than in the prompt."""
        return self.loras[k].apply_to == "both" and (self._differs(k) or self.te_weight(k) != self.te_weight(k, True))

    def _differs(self, k: int) -> bool:
        if not self.negative_weights or self.loras[k].apply_to != "both":
            return False
        one, other = self.weights[k], self.negative_weights[k]
        return (one.weight, one.schedule, one.curve) != (other.weight, other.schedule, other.curve)

    def _whose_turn(self, progress: float) -> int:
        """The first turn is one step longer, as in the reference (maszhongming/Multi-LoRA-Composition): it switches
        after a step whose number, from 0, is a multiple of the period and not 0."""
        step = round(progress * (self.steps - 1))
        return self.turns[max(step - 1, 0) // self.period % len(self.turns)]

    def gates(self, progress: float, row: Row = Row()) -> tuple[float, ...]:
        """At `progress` in this row: one gate per LoRA, for layers whose factor does not vary, then those of the layers
        where it does (`layer_factors.varying_factors`)."""
        own = tuple(self.weight(k, progress, row.uncond) if self._acts(k, row) else 0.0
                    for k in range(len(self.loras)))
        return (*own, *(own[k] * factor.at(progress) for k, factor in self.varying))

    @functools.cached_property
    def varying(self) -> list[tuple[int, Factor]]:
        """(LoRA, factor) of each gate beyond the LoRAs' own."""
        return [(k, factor.placed(self.steps)) for k, factor in varying_factors([lora.blocks for lora in self.loras])]

    def te_gates(self, row: Row = Row()) -> tuple[float, ...]:
        """One gate per LoRA while this row's prompt is encoded. Of composite all rows read the same, as in the
        reference: text encoders see all LoRAs."""
        row = Row(uncond=row.uncond) if self.compose == "composite" else row
        return tuple(self.te_weight(k, row.uncond) if self._acts(k, row) else 0.0 for k in range(len(self.loras)))

    def _acts(self, k: int, row: Row) -> bool:
        if k in self.silent or (k in (*self.own, *self.masked) and (row.plain or row.own not in (None, k))):
            return False
        return self.loras[k].apply_to in ("both", "uncond" if row.uncond else "cond")

    def progress(self) -> list[float]:
        """Progress of each step."""
        return [step_progress(step, self.steps) for step in range(self.steps)]

    def late(self) -> list[str]:
        """Labels of the LoRAs whose schedules have steps after the last one."""
        return [lora.label for k, lora in enumerate(self.loras)
                if any(place > 1 for one in (self.weights[k], *self.negative_weights[k:k + 1])
                       for place, _ in one.schedule or ())
                or any(place > 1 for j, factor in self.varying if j == k
                       for points in factor.schedules for place, _ in points)]

    @property
    def rows_differ(self) -> bool:
        """Whether the gates of the rows differ."""
        return self._differ_of(range(len(self.loras)))

    @property
    def unmasked_rows_differ(self) -> bool:
        """Whether those of LoRAs without masks do, which can be merged."""
        return self._differ_of([k for k in range(len(self.loras)) if k not in self.masked])

    def _differ_of(self, loras: Sequence[int]) -> bool:
        acting = {tuple(self._acts(k, row) for k in loras) for row in self.rows()}
        return len(acting) > 1 or any(self._differs(k) and k not in self.silent for k in loras)

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
            return any(each.te_weight(k, uncond) or any(each.weight(k, at, uncond) for at in each.progress())
                       for each in (self.first, self.hires) if each is not None for uncond in (False, True))

        return sum(1 << k for k in range(len(self.first.loras)) if one >> k & 1 and acts(k))

    def table(self) -> dict:
        """The gates per step as numbers, for the API and the command line."""
        return {"first": _pass_table(self.first), "hires": _pass_table(self.hires) if self.hires else None}


def compile_plan(recipe: Recipe, steps: int, hires_steps: int = 0) -> Plan:
    """The plan of a recipe whose entries are resolved (`presets.resolve`), for so many steps a pass."""
    loras = tuple(recipe.loras)
    turns, period = _turns(recipe), recipe.composition.period

    def compiled(steps: int, compose: str, weights: Callable[[LoraEntry, bool], _Weighted], hires: bool) -> PassPlan:
        def sides(uncond: bool) -> tuple[tuple[_Weighted, ...], tuple[float, ...]]:
            te = (_te_weight(lora, hires, uncond, compose != "switch" or k == turns[0]) for k, lora in enumerate(loras))
            return tuple(weights(lora, uncond).placed(steps) for lora in loras), tuple(te)

        (prompt, te), (negative, negative_te) = sides(False), sides(True)
        if compose == "masked":
            negative = tuple(one.times(recipe.masking.negative) if _is_shared(lora, hires) else one
                             for lora, one in zip(loras, negative))
        return PassPlan(loras, prompt, te, steps, compose, turns, period, negative_weights=negative,
                        negative_te_weights=negative_te, one_row=recipe.composition.rows == "one")

    first = compiled(steps, recipe.compose, lambda lora, uncond: _given(lora, False, uncond), False)
    if not hires_steps:
        return Plan(first)
    end = step_progress(steps - 1, steps)
    stays = recipe.guidance.hires if recipe.compose in SEEN_AHEAD else recipe.composition.hires

    def late(lora: LoraEntry, uncond: bool) -> _Weighted:
        own = _given(lora, True, uncond)
        return own if own is not lora and own is not lora.negative else _constant(own.placed(steps).at(end))

    return Plan(first, compiled(hires_steps, recipe.compose if stays else "merge", late, True))


def _said(lora: LoraEntry, hires: bool, uncond: bool) -> Iterator[_Weighted]:
    """What a recipe says of a LoRA in a pass, in the prompt or in the negative one: what counts before what comes
    after."""
    if hires and lora.hires is not None:
        if uncond and lora.hires.negative is not None:
            yield lora.hires.negative
        yield lora.hires
    if uncond and lora.negative is not None:
        yield lora.negative
    yield lora


def _given(lora: LoraEntry, hires: bool, uncond: bool) -> _Weighted:
    """The weights there; of the hires pass perhaps those of the first pass."""
    return next(one for one in _said(lora, hires, uncond) if one.is_given)


def _is_shared(lora: LoraEntry, hires: bool) -> bool:
    """Whether a subject's LoRA has a share of its weight in the negative prompt: not where weights are given there."""
    said = _given(lora, hires, True)
    its_own = said is lora.negative or (lora.hires is not None and said is lora.hires.negative)
    return bool(lora.subject) and lora.apply_to == "both" and not its_own


def _te_weight(lora: LoraEntry, hires: bool, uncond: bool, acts: bool) -> float:
    """While the prompt is encoded: what is given, or the largest of the weights there. Of switch the prompt is encoded
    once, with the LoRA that `acts` first, as in the reference; others take part where their recipe says so."""
    given = next((one.te_weight for one in _said(lora, hires, uncond) if one.te_weight is not None), None)
    if given is None:
        given = _given(lora, hires, uncond).largest() if acts else 0.0
    return given * LayerFactors(lora.blocks).text_encoder


def _constant(weight: float) -> _Weighted:
    from .recipe import _Weighted

    return _Weighted(weight=weight)


def _turns(recipe: Recipe) -> tuple[int, ...]:
    """Indices of the LoRAs in the order given, or as they are listed, those with a subject first."""
    if recipe.composition.order is not None and recipe.loras:
        labels = [lora.label for lora in recipe.loras]
        return tuple(map(labels.index, recipe.composition.order))
    return tuple(sorted(range(len(recipe.loras)), key=lambda k: not recipe.loras[k].subject))


def _pass_table(plan: PassPlan) -> dict:
    progress = plan.progress()

    def weights(k: int, uncond: bool) -> dict:
        return {"te_weight": plan.te_weight(k, uncond),
                "weights": [round(plan.weight(k, p, uncond), 6) for p in progress]}

    return {
        "steps": plan.steps,
        "progress": [round(p, 6) for p in progress],
        "loras": [
            {"name": lora.label, "apply_to": lora.apply_to, "blocks": lora.blocks,
             **weights(k, lora.apply_to == "uncond"),
             **({"negative": weights(k, True)} if plan.has_negative(k) else {})}
            for k, lora in enumerate(plan.loras)
        ],
    }
