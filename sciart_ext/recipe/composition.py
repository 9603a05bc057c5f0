"""The recipe's `composition`: what the ways to compose LoRAs are set by."""

from __future__ import annotations

from typing import Literal

from ..errors import SciArtError, shown
from .schedule import check_number
from .schema import Field, Name, Strict, check_bool, check_count, validator

READ_BY = {
    "switch": ("period", "order", "hires"),
    "composite": ("hires",),
    "spatial": ("temperature", "patch", "recenter", "hires"),
    "regions": ("rows", "feather", "hires"),
}
"""which of the fields each way to compose looks at"""


class CompositionSettings(Strict):
    """Of compose switch, composite, spatial and regions; each field names its own."""

    period: int = Field(5, description="of switch: steps that a LoRA acts before the next one does")
    order: list[Name] | None = Field(
        None, max_items=32, description="of switch: the LoRAs' names in the order in which they act; default: as "
                                        "listed, those with a subject first")
    temperature: float = Field(
        0.01, description="of spatial: the lower, the more the LoRA that differs most from the base model has to say "
                          "there; the higher, the more alike all")
    patch: int = Field(2, description="of spatial: side of a patch, in pixels of the latent (8 of the picture)")
    recenter: float = Field(
        0.5, description="of spatial: share of the base model in the prediction for the negative prompt")
    rows: Literal["own", "one"] = Field(
        "own", description="of regions: each has rows of its own, or all LoRAs act in one, each in its place")
    feather: float = Field(
        0.0, description="of regions: width of their soft edges, as a share of the picture's shorter side")
    hires: bool = Field(True, description="in the hires pass too; false: there the LoRAs are merged")

    @validator("period", "patch", pre=True)
    def _count(cls, value, field):
        return check_count(value, 1, {"period": 1000, "patch": 64}[field.name])

    @validator("temperature", "recenter", "feather", pre=True)
    def _number(cls, value, field):
        low, high = {"temperature": (1e-4, 100.0), "recenter": (0.0, 1.0), "feather": (0.0, 0.5)}[field.name]
        return check_number(value, "", low, high)

    @validator("order", pre=True)
    def _names(cls, value):
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            raise SciArtError("", f"expected a list of LoRA names, got {shown(value)}")
        if len(set(value)) < len(value):
            raise SciArtError("", f"expected each LoRA once, got {shown(value)}")
        return value

    @validator("hires", pre=True)
    def _yes_or_no(cls, value):
        return check_bool(value)
