"""Routes under /sciart/v1/ in this host, with its own login: those of every WebUI, and what its own pictures need."""

from __future__ import annotations

import re

from fastapi import FastAPI
from modules import script_callbacks, shared

from ...webui.bodies import InfluenceRequest, PipelineRequest
from ...webui.routes import CommonRoutes
from ...webui.serving import Asking, Route, add_routes
from .. import lora_files
from ..model.session import session
from ..settings import OwnPresets
from .influence import influence_of
from .pipeline import pictures_of
from .styles import add_styles

PREFIX = "/sciart/v1"
HOST_ROUTE = "/sdapi/v1/txt2img"
MOST_WITH_PICTURES = 64 << 20
"""bytes of a request with pictures for other extensions"""


def register_routes() -> None:
    """Adds the routes when the host's application has started."""
    script_callbacks.on_app_started(_add_routes)


def list_loras(asking: Asking) -> list:
    """The LoRAs that can be mixed: kind, rank, layers, base model, or the error that keeps one out."""
    if asking.parameters.get("refresh", "false").lower() not in ("false", "0", ""):
        lora_files.refresh()
    told = []
    for name, path in sorted(lora_files.files().items(), key=lambda item: item[0].lower()):
        asking.check_wanted()
        told.append(session.report(path, name))
    return told


def save_styles(asking: Asking) -> dict:
    """Adds the science-imagination prompts to the WebUI's styles; `kept` are those that are there already."""
    return add_styles()


def _add_routes(demo: object, app: FastAPI) -> None:
    host = next((route for route in app.routes if getattr(route, "path", None) == HOST_ROUTE), None)
    if host is None:
        return  # the host was started without its API

    def influence(asking: Asking) -> dict:
        """What each LoRA of a recipe did to a picture: shares, curves, heatmaps, and a sentence for each."""
        return influence_of(asking.body, asking.stop)

    def pipeline(asking: Asking) -> dict:
        """The pictures of a pipeline: txt2img with a pose and repaired faces, light img2img, an upscale."""
        return pictures_of(app, asking.body, asking.stop)

    routes = [
        *CommonRoutes(OwnPresets, lora_files.find).all(), Route("POST", "/styles", save_styles),
        Route("GET", "/loras", list_loras, long=True, query=("refresh",)),
        Route("POST", "/influence", influence, InfluenceRequest, MOST_WITH_PICTURES, long=True),
        Route("POST", "/pipeline", pipeline, PipelineRequest, MOST_WITH_PICTURES, long=True),
    ]
    add_routes(app, PREFIX, routes, list(host.dependencies) or _login_check(app), _is_trusted)


def _is_trusted(origin: str) -> bool:
    """As the host's own options have it: whether pages of this origin may ask."""
    options = shared.cmd_opts
    listed = (options.cors_allow_origins or "").split(",")
    pattern = options.cors_allow_origins_regex
    return "*" in listed or origin in listed or bool(pattern and re.fullmatch(pattern, origin))


def _login_check(app: FastAPI) -> list:
    """What gradio itself asks of its routes where a login is set (--gradio-auth)."""
    if not getattr(app, "auth", None):
        return []
    return next(list(route.dependencies) for route in app.routes
                if getattr(route, "path", None) in ("/info", "/info/") and route.dependencies)
