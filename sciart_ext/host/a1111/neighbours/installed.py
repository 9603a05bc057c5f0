"""Other extensions that a pipeline needs: whether they are there, and what they have, by their own HTTP routes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import FastAPI
from modules import scripts

from ....errors import SciArtError


@dataclass(frozen=True)
class Neighbour:
    """title: of its script; route: which lists its models, under `key`."""

    title: str
    address: str
    route: str
    key: str


NEIGHBOURS = {
    "controlnet": Neighbour("ControlNet", "https://github.com/Mikubill/sd-webui-controlnet",
                            "/controlnet/model_list", "model_list"),
    "adetailer": Neighbour("ADetailer", "https://github.com/Bing-su/adetailer", "/adetailer/v1/ad_model", "ad_model"),
}
"""by the stage that needs it"""


def check_installed(stages: Iterable[str]) -> None:
    """Raises `SciArtError` naming every extension that is missing, and how to go on without."""
    titles = {script.title().lower() for script in scripts.scripts_txt2img.alwayson_scripts}
    missing = {stage: NEIGHBOURS[stage] for stage in stages
               if stage in NEIGHBOURS and NEIGHBOURS[stage].title.lower() not in titles}
    if missing:
        named = " and ".join(f"{one.title} ({one.address})" for one in missing.values())
        verb = "is" if len(missing) == 1 else "are"
        raise SciArtError("pipeline", f"{named} {verb} not installed, or switched off; Extensions → Install from URL "
                                      f"installs it. To go on without: \"without\": {_as_list(missing)}")


def models_of(app: FastAPI, stage: str) -> list[str]:
    """Names of the models that the stage's extension has now. app: the host's, with the extension's routes."""
    neighbour = NEIGHBOURS[stage]
    route = next((route for route in app.routes if getattr(route, "path", None) == neighbour.route), None)
    if route is None:
        raise SciArtError(f"pipeline.{stage}", f"this version of {neighbour.title} has no {neighbour.route} to ask for "
                                               "its models; a newer one has")
    told = route.endpoint()
    return list((asyncio.run(told) if inspect.isawaitable(told) else told)[neighbour.key])


def _as_list(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
