"""The recipe's `masking`: how LoRAs with masks act in one row."""

from __future__ import annotations

from .schedule import check_number
from .schema import Field, Strict, validator


class MaskingSettings(Strict):
    """Of compose masked: each subject's LoRA acts where its subject is, all in the rows of a plain picture."""

    threshold: float = Field(
        0.15, description="share of a word's largest attention from which its mask covers; 0: the whole picture is "
                          "shared out among the subjects")
    negative: float = Field(
        0.9, description="how much of its weight a subject's LoRA has in the negative prompt's row, where the recipe "
                         "gives it none there; the less, the more guidance makes of the LoRA")

    @validator("threshold", "negative", pre=True)
    def _number(cls, value):
        return check_number(value, "", 0.0, 1.0)
