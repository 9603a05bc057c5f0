"""The recipe's `guidance`: how subjects are found (`contrastive` and `masked`), and how contrastive guidance steers."""

from __future__ import annotations

from typing import Literal

from ..errors import SciArtError, shown
from .schedule import MAX_POINTS, check_number, check_points
from .schema import Field, Strict, check_bool, check_count, validator

OF_MASKED = ("noises", "regions", "hires", "show")
"""which of the fields compose masked looks at"""
MAX_NOISES = 16


class GuidanceSettings(Strict):
    """Contrastive guidance: how strong, how long, and where each LoRA's prediction counts. Times are progress 0..1."""

    noises: int = Field(1, description="of how many noises, all from the seed, the picture begins with the one in "
                                       "which the subjects lie farthest apart; each takes a look ahead")
    strength: float = Field(40.0, description="of one update of the latent; 0: no updates, masks only")
    temperature: float = Field(0.5, description="of the contrastive loss")
    until: float = Field(0.3, description="progress after which the latent is not updated any more")
    refine: dict[str, int] = Field({}, maxProperties=MAX_POINTS, description="progress: most updates in the first step "
                                                                                  "from there on")
    target: float = Field(0.0, description="loss at which a step's updates stop")
    masks: bool = Field(True, description="each LoRA's own prediction where its subject is; false: the mixture's "
                                           "everywhere, updates only")
    mask_threshold: float = Field(0.3, description="share of a word's largest attention from which its mask covers")
    opacity: list[list[float]] = Field(
        [[0.0, 1.0], [0.4, 0.35], [0.7, 0.35], [0.75, 0.0]], max_items=MAX_POINTS,
        description="how much of each LoRA's own prediction counts in its mask, as points [[progress, share], ...] or "
                    "the text `1@0, 0.35@0.4, 0@0.75`; the rest is the mixture's")
    opacity_crowded: list[list[float]] = Field(
        [[0.0, 1.0], [0.4, 0.7], [0.75, 0.7], [0.8, 0.0]], max_items=MAX_POINTS,
        description="the same of subjects that are alike, two of one kind, or more than two: in the mixture each gets "
                    "something of the others")
    regions: Literal["whole", "attention"] = Field(
        "whole", description="a subject with a `region` is all over it, or where in it the attention is")
    offload: bool = Field(False, description="keep what an update's gradient needs in main memory: for small GPUs, "
                                             "slower; the picture is the same")
    hires: bool = Field(True, description="guide the hires pass too; false: there the LoRAs are merged")
    show: bool = Field(False, description="add a picture of the subjects' attention and masks to the result")

    @validator("strength", "temperature", "until", "target", "mask_threshold", pre=True)
    def _number(cls, value, field):
        low, high = {"strength": (0.0, 1e4), "temperature": (0.01, 100.0), "target": (0.0, 100.0)}.get(
            field.name, (0.0, 1.0))
        return check_number(value, "", low, high)

    @validator("noises", pre=True)
    def _count(cls, value):
        return check_count(value, 1, MAX_NOISES)

    @validator("masks", "offload", "hires", "show", pre=True)
    def _yes_or_no(cls, value):
        return check_bool(value)

    @validator("opacity", "opacity_crowded", pre=True)
    def _shares(cls, value):
        points = check_points(value, "", in_steps=False)
        for _, share in points:
            check_number(share, "", 0.0, 1.0)
        return [list(point) for point in points]

    @validator("refine", pre=True)
    def _times(cls, value):
        if not isinstance(value, dict):
            raise SciArtError("", f"expected an object such as {{'0': 20, '0.4': 10}}, got {shown(value)}")
        if len(value) > MAX_POINTS:
            raise SciArtError("", f"{len(value)} entries; at most {MAX_POINTS} are accepted")
        for progress, times in value.items():
            try:
                check_number(float(progress), "", 0.0, 1.0)
            except ValueError:
                raise SciArtError(str(progress), "expected a progress from 0 to 1") from None
            if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= 100:
                raise SciArtError(str(progress), f"expected a number of updates, 1 to 100, got {shown(times)}")
        return value
