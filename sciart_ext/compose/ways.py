"""How the predictions of a plan's rows become one, where nothing needs to look at the model for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .by_distance import ByDistance
from .by_region import ByRegion
from .fusion import Average, Fusion

if TYPE_CHECKING:
    from ..recipe import PassPlan
    from ..recipe.composition import CompositionSettings


def fusion_of(plan: PassPlan, settings: CompositionSettings) -> Fusion | None:
    """None where a picture has one prediction (merge, switch). Contrastive guidance, which reads attention, makes a
    `Guide` instead."""
    if not plan.own:
        return None
    if plan.compose == "composite":
        return Average()
    if plan.compose == "spatial":
        return ByDistance(settings)
    if plan.compose == "regions":
        return ByRegion([plan.loras[k].region for k in plan.own], settings.feather)
    raise ValueError(f"compose {plan.compose!r} is not fused by settings alone")
