"""A server with the routes, in a folder of its own: what needs a WebUI is asked as far as it goes without one."""

from __future__ import annotations

from pathlib import Path

import torch
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from safetensors.torch import save_file
from strange_requests import StrangeRequest

from sciart_ext.errors import SciArtError
from sciart_ext.host.webui.bodies import InfluenceRequest, PipelineRequest
from sciart_ext.host.webui.errors import SciArtRequestError
from sciart_ext.host.webui.routes import CommonRoutes
from sciart_ext.host.webui.serving import Asking, Route, add_routes
from sciart_ext.influence.subsets import ask
from sciart_ext.pipeline.settings import dump_pipeline, overridden, parse_pipeline
from sciart_ext.presets import PresetStore, resolve
from sciart_ext.recipe import dump_recipe, parse_recipe

PREFIX = "/sciart/v1"
REFUSED = (403, 413, 415, 422)
OF_THE_SERVER = (404, 405)
"""of a path that is no route's"""


class Served:
    """Presets and two LoRAs lie in the folder."""

    def __init__(self, folder: Path):
        self._folder, self._store = folder, PresetStore(folder / "user")
        for name, seed in (("child", 1), ("watercolor", 2)):
            torch.manual_seed(seed)
            layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
            save_file({f"{layer}.lora_down.weight": torch.randn(2, 8), f"{layer}.lora_up.weight": torch.randn(8, 2)},
                      folder / f"{name}.safetensors")
        app = FastAPI()
        add_routes(app, PREFIX, [
            *CommonRoutes(lambda: self._store, self._find).all(), Route("POST", "/styles", lambda asking: {}),
            Route("GET", "/loras", lambda asking: [], query=("refresh",)),
            Route("POST", "/influence", self._influence, InfluenceRequest),
            Route("POST", "/pipeline", self._pipeline, PipelineRequest)], [])
        app.add_exception_handler(SciArtRequestError, _refusal)
        self._client = TestClient(app, raise_server_exceptions=False)

    def __enter__(self) -> Served:
        self._client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.__exit__(*error)

    def send(self, request: StrangeRequest):
        """The answer. It may be a refusal, but of no other kind."""
        headers = {} if request.body is None else {"Content-Type": request.content_type}
        answer = self._client.request(request.method, PREFIX + request.path, content=request.body, headers=headers)
        check_answer(answer.status_code, answer.content)
        return answer

    def _find(self, name: str, field: str) -> Path:
        if name not in ("child", "watercolor"):
            raise SciArtError(field, "no such LoRA")
        return self._folder / f"{name}.safetensors"

    def _influence(self, asking: Asking) -> dict:
        recipe = resolve(parse_recipe(asking.body.recipe or {}), self._store)
        ask(len(recipe.loras), asking.body.subsets, asking.body.orders)
        return dump_recipe(recipe)

    def _pipeline(self, asking: Asking) -> dict:
        stages = overridden({}, asking.body.pipeline)
        return dump_pipeline(parse_pipeline(stages).without(asking.body.without))


def check_answer(status: int, content: bytes) -> None:
    """Raises `AssertionError` for anything but JSON of success or of a refusal in few words."""
    assert status == 200 or status in REFUSED or status in OF_THE_SERVER, f"status {status}: {content[:500]!r}"
    content.decode("utf-8")
    if status in REFUSED:
        assert b'"message":' in content and len(content) < 8000, content[:500]


async def _refusal(request, error: SciArtRequestError) -> JSONResponse:
    return JSONResponse({"detail": error.detail}, error.status_code)
