"""What our routes are asked, as JSON: fields and their limits, which the WebUI's page of its API shows."""

from __future__ import annotations

from typing import Any, Dict, List

from ...influence.subsets import MAX_ORDERS, ORDERS, SUBSETS
from ...recipe import Recipe
from ...recipe.recipe import MAX_LORAS, MAX_ROLES
from ...recipe.schedule import MAX_WEIGHT, check_number
from ...recipe.schema import Field, Name, NameOrNothing, Strict, Words, check_bool, check_count, validator

MAX_STEPS = 10_000
MAX_WEIGHTS = 100_000
"""of a plan: its steps times its LoRAs"""
AT_ONCE = 8


class PlanRequest(Strict):
    """What `/plan` is asked."""

    recipe: Dict[str, Any] = Field(..., description="the recipe, as in alwayson_scripts")
    steps: int = Field(20, ge=1, le=MAX_STEPS, description="steps of the first pass")
    hires_steps: int = Field(0, ge=0, le=MAX_STEPS, description="steps of the hires pass; 0: none")
    picture: bool = Field(False, description="also draw the plan, as base64 PNG")

    @validator("steps", "hires_steps", pre=True)
    def _count(cls, value, field):
        return check_count(value, int(field.name == "steps"), MAX_STEPS)

    _bool = validator("picture", pre=True, allow_reuse=True)(check_bool)

    class Config(Strict.Config):
        @staticmethod
        def schema_extra(schema: dict, model: type) -> None:
            schema["properties"]["recipe"] = inlined(Recipe.schema())


class GeometryRequest(Strict):
    """What `/geometry` is asked."""

    loras: List[Name] = Field(..., max_items=MAX_LORAS, description="two or more, by name or alias")
    weights: List[float] | None = Field(None, max_items=MAX_LORAS,
                                           description="of each in the mixture; default 1")
    page: bool = Field(False, description="also the report as one HTML file")

    _bool = validator("page", pre=True, allow_reuse=True)(check_bool)

    @validator("weights", pre=True, each_item=True)
    def _numbers(cls, value):
        return check_number(value, "", -MAX_WEIGHT, MAX_WEIGHT)


class PresetRequest(Strict):
    """A preset to keep."""

    name: Name = Field(..., description="1 to 64 of a-z 0-9 _ -")
    preset: Dict[str, Any] = Field(..., description="title, description, recipe, txt2img, prompts")


class RolesRequest(Strict):
    """Roles to bind: role to LoRA name; an empty name unbinds."""

    __root__: Dict[Name, NameOrNothing] = Field(..., maxProperties=MAX_ROLES)


class InfluenceRequest(Strict):
    """What `/influence` is asked."""

    txt2img: Dict[str, Any] = Field(..., description="as /sdapi/v1/txt2img takes it; {\"infotext\": …}: of a picture "
                                                     "that was made before")
    recipe: Dict[str, Any] | None = Field(None, description="the recipe; by default the one in alwayson_scripts or "
                                                               "in the infotext")
    subsets: Name = Field("all", description=f"pictures to make: {', '.join(SUBSETS)}")
    words: List[Words] | None = Field(
        None, max_items=64, description="of the prompt, whose attention is shown; by default those that tell "
                                        "something; []: none")
    orders: int | None = Field(
        None, ge=2, le=MAX_ORDERS, description="of more than four LoRAs, from which shares are estimated; default "
                                               f"{ORDERS}")
    at_once: int = Field(AT_ONCE, ge=1, le=256,
                         description="pictures in a batch; fewer where they do not fit in memory")
    page: bool = Field(False, description="also the report as one HTML file")

    _bool = validator("page", pre=True, allow_reuse=True)(check_bool)

    @validator("orders", pre=True)
    def _orders(cls, value):
        return None if value is None else check_count(value, 2, MAX_ORDERS)

    @validator("at_once", pre=True)
    def _at_once(cls, value):
        return check_count(value, 1, 256)


class PipelineRequest(Strict):
    """What `/pipeline` is asked."""

    preset: Name | None = Field(None, description="one with stages; what else is given overrides it")
    txt2img: Dict[str, Any] = Field({}, description="as /sdapi/v1/txt2img takes it, beside the preset's; "
                                                    "{\"infotext\": …}: as of that picture, in place of the preset's")
    recipe: Dict[str, Any] = Field({}, description="beside the preset's, or the one in alwayson_scripts or infotext")
    pipeline: Dict[str, Any] = Field({}, description="controlnet, adetailer, img2img, upscale, each field by field "
                                                     "beside the preset's; null: not run")
    without: List[Name] = Field([], max_items=8, description="stages to go on without")
    save_images: bool = Field(False, description="keep the pictures in the WebUI's folders")

    _bool = validator("save_images", pre=True, allow_reuse=True)(check_bool)


def inlined(schema: dict) -> dict:
    """A JSON schema with its definitions in place."""
    definitions = schema.get("definitions", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return inline(definitions[node["$ref"].rpartition("/")[2]])
            return {key: inline(value) for key, value in node.items()}
        return [inline(item) for item in node] if isinstance(node, list) else node

    return inline({key: value for key, value in schema.items() if key != "definitions"})
