"""What a recipe gives the engine, for machines where pydantic, which reads recipes, is not installed.

A test holds the settings equal to the recipe's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

GUIDANCE = {
    "noises": 1, "strength": 40.0, "temperature": 0.5, "until": 0.3, "refine": {}, "target": 0.0, "masks": True,
    "mask_threshold": 0.3, "opacity": [[0.0, 1.0], [0.4, 0.35], [0.7, 0.35], [0.75, 0.0]],
    "opacity_crowded": [[0.0, 1.0], [0.4, 0.7], [0.75, 0.7], [0.8, 0.0]], "regions": "whole", "offload": False,
    "hires": True, "show": False,
}
MASKING = {"threshold": 0.15, "negative": 0.9}
COMBINING = {"density": 0.5, "majority": "total", "seed": 0, "directions": 16, "strength": 0.25}


def guidance(**changed) -> SimpleNamespace:
    """`GuidanceSettings`."""
    return SimpleNamespace(**{**GUIDANCE, **changed})


def combination(method: str) -> SimpleNamespace:
    """`Combination` of this method."""
    return SimpleNamespace(method=method, settings=SimpleNamespace(**COMBINING))


@dataclass(frozen=True)
class Entry:
    """A LoRA of the recipe with a constant weight, as `PassPlan` reads it."""

    subject: str
    weight: float
    region: tuple[float, float, float, float] | None = None
    trigger: str = ""
    apply_to: str = "both"
    blocks: dict = field(default_factory=dict)
    schedule: None = None
    curve: str = "linear"

    def at(self, progress: float) -> float:
        return self.weight
