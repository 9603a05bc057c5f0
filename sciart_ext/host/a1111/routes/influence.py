"""The influence of LoRAs on a picture that the host makes: other sets of them, as images of its own batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Dict, List

from PIL import Image
from pydantic import BaseModel, Field

from ....errors import SciArtError
from ....influence.batches import in_batches, missing_of
from ....influence.page import report_page
from ....influence.report import Report, as_data, heat_sheets, report
from ....influence.runs import Run
from ....influence.subsets import ORDERS, SUBSETS, Unfinished, ask
from ....influence.word_maps import telling_words
from ....pipeline.requests import SCRIPT
from ....presets import resolve
from ....recipe import Recipe, compile_plan, dump_recipe, is_off, parse_recipe
from ....recipe.schedule import check_number
from ....report.html_page import base64_png
from ...webui.watched import Watched
from ..model.parts import model_name
from ..model.session import loaded_model
from ..settings import OwnPresets
from .requests import apply_infotext, take_recipe, txt2img_request

AT_ONCE = 8


class InfluenceRequest(BaseModel):
    """What `/influence` is asked."""

    txt2img: Dict[str, Any] = Field(..., description="as /sdapi/v1/txt2img takes it; {\"infotext\": …}: of a picture "
                                                     "that was made before")
    recipe: Dict[str, Any] | None = Field(None, description="the recipe; by default the one in alwayson_scripts or "
                                                               "in the infotext")
    subsets: str = Field("all", description=f"pictures to make: {', '.join(SUBSETS)}")
    words: List[str] | None = Field(None, description="of the prompt, whose attention is shown; by default those "
                                                         "that tell something; []: none")
    orders: int | None = Field(None, description="of more than four LoRAs, from which shares are estimated; default "
                                                    f"{ORDERS}")
    at_once: int = Field(AT_ONCE, description="pictures in a batch; fewer where they do not fit in memory")
    page: bool = Field(False, description="also the report as one HTML file")


class Begun:
    """The runs of the request that was cancelled last: asked again, it goes on with them."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._runs: dict[int, Run] = {}

    def runs(self, key: str) -> dict[int, Run]:
        """Of this request, so far."""
        if key != self._key:
            self._key, self._runs = key, {}
        return self._runs

    def forget(self) -> None:
        """The request is answered."""
        self._key, self._runs = None, {}


begun = Begun()


class _Interrupted(Exception):
    """The host was told to stop."""


def influence_of(api, body: InfluenceRequest) -> dict:
    """What each LoRA of a recipe did to a picture, as JSON data with PNGs; interrupted, how many of the pictures are
    made. `api`: the host's. Raises `SciArtError` for what cannot be asked."""
    told = explained(api, body)
    if isinstance(told, Unfinished):
        return {"cancelled": True, "made": told.made, "of": told.of}
    return {"cancelled": False, **as_data(told), **_pictures(told), "page": report_page(told) if body.page else None}


def explained(api, body: InfluenceRequest, stop: Callable[[], bool] = lambda: False) -> Report | Unfinished:
    """The same as a report; stop(): whether it is cancelled, beside the host's own interrupt."""
    request = txt2img_request(body.txt2img, "influence")
    recipe = _recipe(body, request)
    apply_infotext(api, request)
    question = ask(len(recipe.loras), body.subsets, body.orders)
    at_once = int(check_number(body.at_once, "at_once", 1, 256))
    seed = request.seed if request.seed not in (None, -1) else random.randrange(2**32)
    words = tuple(telling_words(request.prompt) if body.words is None else body.words)
    key = repr(({**vars(request), "seed": seed}, dump_recipe(recipe), words, model_name(loaded_model())))
    runs = begun.runs(key)
    hires_steps = (request.hr_second_pass_steps or request.steps) if request.enable_hr else 0
    acting = compile_plan(recipe, request.steps, hires_steps).acting
    missing = missing_of(question.sets, runs, acting)

    def make(batch: Sequence[int]) -> dict[int, Run]:
        done = sum(one in runs for one in missing)
        watched = Watched(dump_recipe(recipe), tuple(batch), words, done // len(batch),
                          -(-len(missing) // len(batch)), stop)
        _make(api, request, seed, watched)
        if watched.interrupted or stop():
            raise _Interrupted
        return dict(zip(batch, map(Run, watched.trajectories(), watched.pictures, watched.attention())))

    try:
        in_batches(question.sets, at_once, make, runs, acting)
    except _Interrupted:
        return Unfinished(len(runs), len(question.sets))
    told = report([lora.label for lora in recipe.loras], question, runs, words, _made(request, seed, recipe))
    begun.forget()
    return told


def _recipe(body: InfluenceRequest, request) -> Recipe:
    """The request's recipe, resolved; what is in `alwayson_scripts` is taken out of it."""
    told = take_recipe(request)
    data = told if body.recipe is None else body.recipe
    if data is None or is_off(data):
        raise SciArtError("recipe", "missing; give one, or the infotext of a picture that was made with one")
    return resolve(parse_recipe(data), OwnPresets())


def _make(api, request, seed: int, watched: Watched) -> None:
    """Has the host make a batch: every image with the same seed, so from the same noise."""
    count = len(watched.sets)
    subseed = request.subseed if request.subseed not in (None, -1) else 0
    api.text2imgapi(request.copy(update={
        "seed": [seed] * count, "subseed": [subseed] * count, "batch_size": count, "n_iter": 1, "send_images": False,
        "save_images": False, "alwayson_scripts": {**request.alwayson_scripts, SCRIPT: {"args": [watched]}}}))


def _made(request, seed: int, recipe: Recipe) -> dict:
    known = {name: value for name, value in request.dict(exclude_unset=True).items()
             if isinstance(value, (str, int, float, bool))}
    sampler = request.sampler_name or request.sampler_index or "Euler"
    return {**known, "seed": seed, "model": model_name(loaded_model()), "recipe": dump_recipe(recipe),
            "summary": [f"seed {seed}", f"{request.steps} steps of {sampler}", f"CFG {request.cfg_scale:g}"]}


def _pictures(told: Report) -> dict:
    """Base64 PNGs: of each set, and sheets of heatmaps on one scale."""
    return {"images": [base64_png(Image.fromarray(told.pictures[one])) for one in told.question.sets],
            "heatmaps": {kind: base64_png(sheet) for kind, sheet in heat_sheets(told).items()}}
