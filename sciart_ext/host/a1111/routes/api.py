"""Routes under /sciart/v1/: presets, roles, styles, LoRAs, plans, geometry, influence, pipelines; with the host's
own login."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import wraps
from typing import Any, Dict, List

from fastapi import FastAPI
from modules import script_callbacks
from pydantic import BaseModel, Field

from ....errors import SciArtError
from ....geometry.page import geometry_page
from ....geometry.report import as_data
from ....presets import resolve
from ....recipe import Recipe, compile_plan, dump_recipe, parse_recipe
from ....recipe.schedule import MAX_WEIGHT, check_number
from ....report.plan_plot import plan_png
from ...webui.errors import as_request_error
from ..model import lora_files
from ..model.session import session
from ..settings import OwnPresets
from .geometry import compared
from .influence import InfluenceRequest, influence_of
from .pipeline import PipelineRequest, pictures_of
from .styles import add_styles

PREFIX = "/sciart/v1"
HOST_ROUTE = "/sdapi/v1/txt2img"
MAX_STEPS = 10_000


def inlined_schema() -> dict:
    """The recipe's JSON schema with its definitions in place, for the host's OpenAPI page."""
    schema = {key: value for key, value in Recipe.schema().items() if key != "definitions"}
    definitions = Recipe.schema().get("definitions", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return inline(definitions[node["$ref"].rpartition("/")[2]])
            return {key: inline(value) for key, value in node.items()}
        return [inline(item) for item in node] if isinstance(node, list) else node

    return inline(schema)


class PlanRequest(BaseModel):
    """What `/plan` is asked."""

    recipe: Dict[str, Any] = Field(..., description="the recipe, as in alwayson_scripts")
    steps: int = Field(20, description="steps of the first pass")
    hires_steps: int = Field(0, description="steps of the hires pass; 0: none")
    picture: bool = Field(False, description="also draw the plan, as base64 PNG")

    class Config:
        @staticmethod
        def schema_extra(schema: dict, model: type) -> None:
            schema["properties"]["recipe"] = inlined_schema()


class GeometryRequest(BaseModel):
    """What `/geometry` is asked."""

    loras: List[str] = Field(..., description="two or more, by name or alias")
    weights: List[float] | None = Field(None, description="of each in the mixture; default 1")
    page: bool = Field(False, description="also the report as one HTML file")


class PresetRequest(BaseModel):
    """A preset to keep."""

    name: str = Field(..., description="1 to 64 of a-z 0-9 _ -")
    preset: Dict[str, Any] = Field(..., description="title, description, recipe, txt2img, prompts")


def register_routes() -> None:
    """Adds the routes when the host's application has started."""
    script_callbacks.on_app_started(_add_routes)


def list_presets() -> dict:
    """All presets with their roles, and which LoRA is bound to which role."""
    store = OwnPresets()
    return {"presets": [store.read(name).to_json() for name in store.names()], "bindings": store.bindings()}


def read_preset(name: str) -> dict:
    """One preset."""
    return OwnPresets().read(name, "name").to_json()


def save_preset(body: PresetRequest) -> dict:
    """Keeps a preset in the extension's own folder."""
    return OwnPresets().save(body.name, body.preset).to_json()


def delete_preset(name: str) -> dict:
    """Deletes one of the user's own presets."""
    OwnPresets().delete(name)
    return {"deleted": name}


def read_roles() -> dict:
    """Which LoRA is bound to which role."""
    return OwnPresets().bindings()


def bind_roles(body: Dict[str, str]) -> dict:
    """Binds roles to LoRA names; an empty name unbinds."""
    for role, name in body.items():
        if name:
            lora_files.find(name, role)
    return OwnPresets().bind(body)


def save_styles() -> dict:
    """Adds the science-imagination prompts to the WebUI's styles; `kept` are those that are there already."""
    return add_styles()


def list_loras(refresh: bool = False) -> list:
    """The LoRAs that can be mixed: kind, rank, layers, base model, or the error that keeps one out."""
    if refresh:
        lora_files.refresh()
    files = sorted(lora_files.files().items(), key=lambda item: item[0].lower())
    return [session.report(path, name) for name, path in files]


def plan(body: PlanRequest) -> dict:
    """What a recipe compiles to: the weight of each LoRA at each step, as numbers and as a picture."""
    steps = int(check_number(body.steps, "steps", 1, MAX_STEPS))
    hires_steps = int(check_number(body.hires_steps, "hires_steps", 0, MAX_STEPS))
    recipe = resolve(parse_recipe(body.recipe), OwnPresets())
    compiled = compile_plan(recipe, steps, hires_steps)
    png = base64.b64encode(plan_png(compiled)).decode("ascii") if body.picture else None
    return {"recipe": dump_recipe(recipe), "plan": compiled.table(), "png": png}


def geometry(body: GeometryRequest) -> dict:
    """What LoRAs have in common, layer by layer, by block and in all, and where they conflict."""
    weights = None if body.weights is None else [check_number(weight, f"weights[{i}]", -MAX_WEIGHT, MAX_WEIGHT)
                                                 for i, weight in enumerate(body.weights)]
    comparison = compared(body.loras, weights)
    return {**as_data(comparison), "page": geometry_page(comparison) if body.page else None}


def _influence_by(api: object) -> Callable:
    def influence(body: InfluenceRequest) -> dict:
        """What each LoRA of a recipe did to a picture: shares, curves, heatmaps, and a sentence for each."""
        return influence_of(api, body)

    return influence


def _pipeline_by(api: object) -> Callable:
    def pipeline(body: PipelineRequest) -> dict:
        """The pictures of a pipeline: txt2img with a pose and repaired faces, light img2img, an upscale."""
        return pictures_of(api, body)

    return pipeline


def _add_routes(demo: object, app: FastAPI) -> None:
    host = next((route for route in app.routes if getattr(route, "path", None) == HOST_ROUTE), None)
    if host is None:
        return  # the host was started without its API
    dependencies = list(host.dependencies) or _login_check(app)
    for method, path, endpoint in (
        ("GET", "/presets", list_presets), ("GET", "/presets/{name}", read_preset),
        ("POST", "/presets", save_preset), ("DELETE", "/presets/{name}", delete_preset),
        ("GET", "/roles", read_roles), ("POST", "/roles", bind_roles),
        ("POST", "/styles", save_styles), ("GET", "/loras", list_loras),
        ("POST", "/plan", plan), ("POST", "/geometry", geometry),
        ("POST", "/influence", _influence_by(host.endpoint.__self__)),
        ("POST", "/pipeline", _pipeline_by(host.endpoint.__self__)),
    ):
        app.add_api_route(PREFIX + path, _refusing(endpoint), methods=[method], dependencies=dependencies,
                          tags=["SciArt"], name=f"sciart_{endpoint.__name__}")


def _login_check(app: FastAPI) -> list:
    """What gradio itself asks of its routes where a login is set (--gradio-auth)."""
    if not getattr(app, "auth", None):
        return []
    return next(list(route.dependencies) for route in app.routes
                if getattr(route, "path", None) in ("/info", "/info/") and route.dependencies)


def _refusing(endpoint: Callable) -> Callable:
    """The endpoint with our refusals as status 422."""
    @wraps(endpoint)
    def call(*args, **kwargs):
        try:
            return endpoint(*args, **kwargs)
        except SciArtError as error:
            raise as_request_error(error) from None

    return call
