"""What of a recipe does nothing in a picture, or something else than it seems: notes on the result."""

from __future__ import annotations

from .plan import PassPlan
from .recipe import LoraEntry, Recipe


def without_guidance(recipe: Recipe) -> list[str]:
    """At CFG scale 1 the prediction for the negative prompt does not count."""
    fields = [f"loras[{i}].{field}" for i, lora in enumerate(recipe.loras) for field in _of_negative(lora)]
    return [f"{', '.join(fields)}: no effect at CFG scale 1, where the negative prompt does not "
            "count"] if fields else []


def _of_negative(lora: LoraEntry) -> list[str]:
    own = [field for field, _ in lora.parts() if field.endswith("negative")]
    return [f"apply_to {lora.apply_to}"] if lora.apply_to == "uncond" else own


def in_plan(plan: PassPlan, hires: bool = False) -> list[str]:
    """Of a pass: schedules with steps after the last."""
    late = plan.late()
    last = f"the last of the hires pass, {plan.steps}" if hires else f"the last, {plan.steps}"
    return [f"{', '.join(late)}: a step of the schedule is after {last}"] if late else []


def in_hires_pass(recipe: Recipe) -> list[str]:
    """LoRAs that are off in the hires pass, but for the text encoder, whose weight is given for both passes."""
    fields = [f"loras[{i}]" for i, lora in enumerate(recipe.loras)
              if lora.te_weight and lora.hires is not None and lora.hires.te_weight is None
              and lora.hires.is_given and not lora.hires.largest()]
    return [f"{', '.join(fields)}: in the hires pass the weight is 0, but te_weight still acts; hires.te_weight 0 "
            "switches it off"] if fields else []
