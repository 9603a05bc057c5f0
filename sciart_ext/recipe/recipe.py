"""The recipe: the one schema of panel, API, presets, infotext and command line (docs/recipe.md)."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Literal, Optional, Tuple, Union, get_args

from ..errors import SciArtError, did_you_mean, shown
from ..json_text import check_json, read_json
from .combining import Combination, CombiningSettings, Method
from .composition import CompositionSettings
from .guidance import GuidanceSettings
from .layer_factors import check_blocks, varying_factors
from .masking import MaskingSettings
from .schedule import MAX_POINTS, MAX_WEIGHT, check_number, check_points, placed, points_to_text, weight_at
from .schema import Field, Name, Strict, ValidationError, Words, check_bool, refused, validator

INFOTEXT_KEY = "SciArt"
VERSION_KEY = "SciArt version"
NOTES_KEY = "SciArt notes"
NOISE_KEY = "SciArt noise"
MAX_LORAS = 32
MAX_ROLES = 256
MAX_POINTS_IN_ALL = 40_000
"""of all schedules of a recipe"""
MAX_SCHEDULED_FACTORS = 512
"""of all LoRAs: different schedules that their layers have by `blocks`"""
MAX_CHARACTERS = 16 << 20
"""of a recipe as a text, masks included"""
Compose = Literal["merge", "switch", "composite", "spatial", "regions", "masked", "contrastive"]
COMPOSES: tuple[str, ...] = get_args(Compose)


def _optional_weight(value: Any) -> Optional[float]:
    return None if value is None else check_number(value, "", -MAX_WEIGHT, MAX_WEIGHT)


class _Weighted(Strict):
    """A weight that is one number or a schedule; shared by both passes, and by prompt and negative prompt."""

    weight: Optional[float] = Field(None, description="one weight for all steps; or give a schedule")
    schedule: Optional[List[List[Union[float, str]]]] = Field(
        None, max_items=MAX_POINTS, description="points [[progress 0..1, weight], ...] or the text `0.2@0, 0.65@0.5`; "
                                                "a step, counted from 1, in place of progress: [[\"s5\", 0.8]], "
                                                "`0.8@s5`; two points at one place are a jump")
    curve: Literal["linear", "step", "cosine"] = Field("linear", description="between the points of the schedule")
    te_weight: Optional[float] = Field(
        None, description="text encoder's weight; default: the weight, or the largest of the schedule")

    _numbers = validator("weight", "te_weight", pre=True, allow_reuse=True)(_optional_weight)

    @validator("schedule", pre=True)
    def _points(cls, value):
        return None if value is None else [list(point) for point in check_points(value, "")]

    @validator("schedule")
    def _one_of_both(cls, value, values):
        if value is not None and values.get("weight") is not None:
            raise SciArtError("", "give a weight or a schedule, not both")
        return value

    @property
    def is_given(self) -> bool:
        """Whether there is a weight or a schedule."""
        return self.weight is not None or self.schedule is not None

    def placed(self, steps: int) -> _Weighted:
        """The same in a pass of so many steps, with the points of its schedule by progress."""
        return self if self.schedule is None else self.copy(update={"schedule": placed(self.schedule, steps)})

    def times(self, share: float) -> _Weighted:
        """The same with so much of every weight in the UNet."""
        if self.schedule is not None:
            return self.copy(update={"schedule": [[place, weight * share] for place, weight in self.schedule]})
        return self.copy(update={"weight": self.weight * share})

    def at(self, progress: float) -> Optional[float]:
        """The weight at `progress`, of a schedule that is `placed`; None where neither weight nor schedule is given."""
        if self.schedule is not None:
            return weight_at(self.schedule, self.curve, progress)
        return self.weight

    def largest(self) -> Optional[float]:
        """The weight of the largest magnitude."""
        if self.schedule is not None:
            return max((w for _, w in self.schedule), key=abs)
        return self.weight

    def schedule_text(self) -> str:
        """The schedule in its short form; empty without one."""
        return points_to_text(self.schedule) if self.schedule else ""


class NegativeWeights(_Weighted):
    """Weights in the negative prompt. Default: the prompt's."""


class HiresWeights(_Weighted):
    """Weights of the hires pass, in both prompts. Default: those the first pass ended with, its text encoder's."""

    negative: Optional[NegativeWeights] = Field(
        None, description="weights in the negative prompt; default: the prompt's of this pass, where one is given")


class LoraEntry(_Weighted):
    """One LoRA of the mixture."""

    name: Optional[Name] = Field(None, description="what the host calls the network: name or alias")
    role: Optional[Name] = Field(None, description="a role (child, watercolor, ...) bound to a file")
    blocks: Any = Field({}, description="factors of its layers by block (in, mid, out, BASE, IN00 to OUT11) or kind "
                                        "(attention, feed_forward, convolution): numbers, in the UNet also schedules; "
                                        "or a list of 12, 17, 20 or 26 block weights; default 1")
    apply_to: Literal["both", "cond", "uncond"] = Field(
        "both", description="prompt, negative prompt or both; what it leaves out runs without this LoRA")
    subject: Optional[Words] = Field(None, description="words of the prompt this LoRA is about")
    trigger: Optional[Words] = Field(
        None, description="words put before the subject in this LoRA's own prompt")
    region: Optional[Union[List[float], str]] = Field(
        None, description="where its subject is (contrastive, masked; default: found) or where it acts (regions): a "
                          "box [x0, y0, x1, y1], shares of the picture, or a mask, a PNG as a data URL, white inside")
    negative: Optional[NegativeWeights] = Field(
        None, description="weights in the negative prompt; default: the prompt's")
    hires: Optional[HiresWeights] = Field(None, description="weights of the hires pass")

    @validator("region", pre=True)
    def _box(cls, value):
        if value is None:
            return None
        if isinstance(value, str):
            from .mask_picture import compact  # with numpy and Pillow, which few recipes need

            return compact(value)
        if not isinstance(value, (list, tuple)) or len(value) != 4:
            raise SciArtError("", f"expected four numbers [x0, y0, x1, y1], got {shown(value)}")
        x0, y0, x1, y1 = (check_number(number, "", 0.0, 1.0) for number in value)
        if not (x0 < x1 and y0 < y1):
            raise SciArtError("", f"expected x0 < x1 and y0 < y1, got {shown(value)}")
        return [x0, y0, x1, y1]

    @validator("blocks", pre=True)
    def _block_weights(cls, value):
        return check_blocks(value)

    def parts(self) -> Iterator[Tuple[str, _Weighted]]:
        """(field, weights) of each pass and prompt that has its own; the field of the first is empty."""
        yield "", self
        if self.negative is not None:
            yield "negative", self.negative
        if self.hires is not None:
            yield "hires", self.hires
            if self.hires.negative is not None:
                yield "hires.negative", self.hires.negative

    @property
    def label(self) -> str:
        """How the LoRA is called in plots, notes and errors."""
        return self.name or self.role or "?"


class Recipe(Strict):
    """What SciArt does to a picture."""

    enabled: bool = Field(True, description="false leaves the host alone")
    preset: Optional[Name] = Field(None, description="a starting point; what else is given overrides it")
    roles: Dict[Name, Name] = Field({}, maxProperties=MAX_ROLES, description="role to LoRA name, for this recipe")
    loras: List[LoraEntry] = Field([], max_items=MAX_LORAS)
    combine: Method = Field("linear", description="how deltas are joined in weight space")
    combining: CombiningSettings = Field(CombiningSettings(), description="of every combine but linear")
    compose: Compose = Field(
        "merge", description="how the LoRAs share the picture")
    composition: CompositionSettings = Field(
        CompositionSettings(), description="of compose switch, composite, spatial and regions")
    masking: MaskingSettings = Field(MaskingSettings(), description="of compose masked")
    guidance: GuidanceSettings = Field(GuidanceSettings(), description="of compose contrastive; of masked too where it "
                                                                       "says so")
    execution: Literal["auto", "merge", "branch"] = Field(
        "auto", description="how layers are computed: the picture is the same, time and memory differ")
    memory_limit_mb: Optional[float] = Field(None, description="most memory for merged weights; default: automatic")

    @validator("enabled", pre=True)
    def _bool(cls, value):
        return check_bool(value)

    @validator("roles", pre=True)
    def _not_too_many(cls, value):
        if isinstance(value, dict) and len(value) > MAX_ROLES:
            raise SciArtError("", f"{len(value)} roles; at most {MAX_ROLES} are accepted")
        return value

    @validator("memory_limit_mb", pre=True)
    def _limit(cls, value):
        return None if value is None else check_number(value, "", 0.0, 1e6)

    @property
    def combination(self) -> Optional[Combination]:
        """How the deltas are joined; None: linearly."""
        return None if self.combine == "linear" else Combination(self.combine, self.combining)

    @property
    def memory_limit(self) -> Optional[float]:
        """The limit in bytes; None: automatic."""
        return None if self.memory_limit_mb is None else self.memory_limit_mb * 2**20


def parse_recipe(value: object) -> Recipe:
    """A recipe from a dict or a JSON text; anything that does not fit raises `SciArtError` naming the field."""
    if isinstance(value, Recipe):
        return value
    if isinstance(value, (str, bytes)):
        if len(value) > MAX_CHARACTERS:
            raise SciArtError("recipe", f"{len(value)} characters; at most {MAX_CHARACTERS} are accepted")
        try:
            value = read_json(value)
        except ValueError as error:
            raise SciArtError("recipe", f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise SciArtError("recipe", f"expected one JSON object, got {type(value).__name__}")
    check_json(value, "recipe")
    try:
        recipe = Recipe.parse_obj(value)
    except ValidationError as error:
        raise refused(error, Recipe) from None
    _check_schedules(recipe)
    if recipe.enabled:
        _check_entries(recipe)
    return recipe


def _check_schedules(recipe: Recipe) -> None:
    """What every step of a picture looks at has a bound."""
    schedules = [one for lora in recipe.loras for one in (*(part.schedule for _, part in lora.parts()),
                 *(lora.blocks.values() if isinstance(lora.blocks, dict) else ())) if isinstance(one, list)]
    points = sum(map(len, schedules))
    if points > MAX_POINTS_IN_ALL:
        raise SciArtError("loras", f"{points} points of schedules in all; at most {MAX_POINTS_IN_ALL} are accepted")
    factors = len(varying_factors([lora.blocks for lora in recipe.loras]))
    if factors > MAX_SCHEDULED_FACTORS:
        raise SciArtError("loras", f"{factors} different schedules of blocks in all; at most {MAX_SCHEDULED_FACTORS} "
                                   "are accepted")


def _check_entries(recipe: Recipe) -> None:
    if not recipe.loras and recipe.preset is None:
        raise SciArtError("loras", "empty; give at least one LoRA or a preset")
    seen: set[str] = set()
    for i, lora in enumerate(recipe.loras):
        where = f"loras[{i}]"
        if (lora.name is None) == (lora.role is None):
            raise SciArtError(f"{where}.name", "give a name or a role, one of them")
        if lora.weight is None and lora.schedule is None:
            raise SciArtError(f"{where}.weight", "missing; give a weight or a schedule")
        for field in (field for field, _ in lora.parts() if field.endswith("negative")):
            if lora.apply_to != "both":
                raise SciArtError(f"{where}.{field}", f"apply_to {lora.apply_to} leaves one of the prompts out; "
                                                      "accepted: apply_to both, or no weights of the negative prompt")
        if lora.label in seen:
            raise SciArtError(f"{where}.name", f"{shown(lora.label)} is listed twice; one entry per LoRA")
        if lora.trigger and not lora.subject:
            raise SciArtError(f"{where}.trigger", "needs a subject to stand before; give subject too")
        # what a preset says of compose is not known yet
        if lora.region and not lora.subject and recipe.compose != "regions" and recipe.preset is None:
            raise SciArtError(f"{where}.region", "needs a subject, which is to be there; give subject too, or compose "
                                                 "regions")
        seen.add(lora.label)
    needed = {"contrastive": "subject", "masked": "subject", "regions": "region"}.get(recipe.compose)
    if needed and recipe.loras and not any(getattr(lora, needed) for lora in recipe.loras):
        raise SciArtError(f"loras[0].{needed}", f"missing; compose {recipe.compose} needs a LoRA with a {needed}")
    if recipe.combine != "linear" and (by := _placed_by(recipe)):
        raise SciArtError("combine", f"{recipe.combine} joins whole deltas, which have no places; accepted with "
                                     f"{by}: linear")
    if recipe.composition.order is not None and recipe.loras:
        _check_order(recipe.composition.order, [lora.label for lora in recipe.loras])


def _placed_by(recipe: Recipe) -> str:
    """The setting by which LoRAs share a row, each in its place; empty without one."""
    if recipe.compose == "regions" and recipe.composition.rows == "one":
        return "composition.rows one"
    return "compose masked" if recipe.compose == "masked" else ""


def _check_order(order: List[str], labels: List[str]) -> None:
    for i, name in enumerate(order):
        if name not in labels:
            raise SciArtError(f"composition.order[{i}]",
                              f"no LoRA {shown(name)} in the recipe; {did_you_mean(name, labels)}")
    left_out = [label for label in labels if label not in order]
    if left_out:
        raise SciArtError("composition.order", f"{', '.join(left_out)} never acts; accepted: each LoRA of the recipe "
                                               "once")


def is_off(value: object) -> bool:
    """Whether script arguments leave the host alone: missing, null, an empty text, or `enabled: false`."""
    if isinstance(value, str):
        if not value.strip():
            return True
        value = parse_json_leniently(value)
    return value is None or (isinstance(value, dict) and value.get("enabled", True) is False)


def parse_json_leniently(text: str) -> object:
    """The JSON value of `text`, or the text itself when it is none: `parse_recipe` then says what is wrong."""
    try:
        return read_json(text) if len(text) <= MAX_CHARACTERS else text
    except ValueError:
        return text


def dump_recipe(recipe: Recipe) -> dict:
    """The recipe as plain JSON data, defaults left out."""
    return json.loads(recipe.json(exclude_defaults=True))


def recipe_to_text(recipe: Recipe) -> str:
    """The one-line JSON text for the infotext; `parse_recipe` reads it back to an equal recipe."""
    return json.dumps(dump_recipe(recipe), ensure_ascii=False, separators=(",", ":"))

