"""What a call of a sampler needs of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modules.processing import StableDiffusionProcessing

from ....guidance.layout import Layout
from ....mixer.mixture import Mixture
from ....recipe import PassPlan, Recipe
from ...protocols import Note, Refused
from ...webui.watched import Asked
from ..prompts.encoding import EncodedRows


@dataclass(frozen=True)
class PassContext:
    """Of the first or of the hires pass."""

    p: StableDiffusionProcessing
    hires: bool
    """whether it is the hires pass"""
    recipe: Recipe
    asked: Asked | None
    """what our own routes ask of the run"""
    plan: Callable[[int], PassPlan]
    """of this pass, for a number of steps"""
    plans: Callable[[PassPlan, int], Sequence[PassPlan]]
    """(plan, images): of each image of the batch"""
    encoded: Callable[[], EncodedRows]
    """the conditionings of this pass, where LoRAs have rows or texts of their own"""
    mixture: Callable[[], Mixture | None]
    """the LoRAs on the model that is loaded now; None where they do not fit it"""
    note: Note
    keep: Callable[[Layout], None]
    """is given where the subjects of the pass are, and what guided them, at its end"""
    refused: Refused
