"""The influence of LoRAs on a picture that the host makes: other sets of them, as images of its own batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from PIL import Image

from ....errors import SciArtError
from ....influence.batches import in_batches, missing_of, sets_to_make, shared_noise
from ....influence.page import report_page
from ....influence.report import Report, as_data, heat_sheets, report
from ....influence.runs import Run
from ....influence.subsets import Unfinished, ask
from ....influence.word_maps import telling_words
from ....presets import resolve
from ....recipe import Recipe, compile_plan, dump_recipe, is_off, parse_recipe
from ....report.html_page import base64_png
from ...webui.bodies import InfluenceRequest
from ...webui.watched import Watched
from ..model.parts import model_name
from ..model.session import loaded_model
from ..settings import OwnPresets
from .pictures import make_pictures
from .requests import apply_infotext, take_recipe, txt2img_request

MOST_STEPS = 100_000
"""of all pictures of a question together"""


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


def influence_of(body: InfluenceRequest, stop: Callable[[], bool]) -> dict:
    """What each LoRA of a recipe did to a picture, as JSON data with PNGs; interrupted, how many of the pictures are
    made. Raises `SciArtError` for what cannot be asked."""
    told = explained(body, stop)
    if isinstance(told, Unfinished):
        return {"cancelled": True, "made": told.made, "of": told.of}
    return {"cancelled": False, **as_data(told), **_pictures(told), "page": report_page(told) if body.page else None}


def explained(body: InfluenceRequest, stop: Callable[[], bool] = lambda: False) -> Report | Unfinished:
    """The same as a report; stop(): whether it is cancelled, beside the host's own interrupt."""
    request = txt2img_request(body.txt2img, "influence")
    recipe = _recipe(body, request)
    apply_infotext(request)
    question = ask(len(recipe.loras), body.subsets, body.orders)
    seed = request.seed if request.seed not in (None, -1) else random.randrange(2**32)
    words = tuple(telling_words(request.prompt) if body.words is None else body.words)
    key = repr(({**vars(request), "seed": seed}, dump_recipe(recipe), words, model_name(loaded_model())))
    runs = begun.runs(key)
    hires_steps = (request.hr_second_pass_steps or request.steps) if request.enable_hr else 0
    sets = sets_to_make(question.sets, recipe)
    steps = len(sets) * (request.steps + hires_steps)
    if steps > MOST_STEPS:
        raise SciArtError("orders", f"{len(sets)} pictures are {steps} steps; at most {MOST_STEPS} are "
                                    "accepted")
    acting = compile_plan(recipe, request.steps, hires_steps).acting
    missing = missing_of(sets, runs, acting)
    noise = shared_noise(runs)

    def make(batch: Sequence[int]) -> dict[int, Run]:
        done = sum(one in runs for one in missing)
        watched = Watched(dump_recipe(recipe), stop, sets=tuple(batch), words=words, noise=noise,
                          batch=done // len(batch), batches=-(-len(missing) // len(batch)))
        _make(request, seed, watched)
        if watched.interrupted or stop():
            raise _Interrupted
        return dict(zip(batch, map(Run, watched.trajectories(), watched.pictures, watched.attention(),
                                   [noise.number] * len(batch))))

    try:
        in_batches(sets, body.at_once, make, runs, acting)
    except _Interrupted:
        return Unfinished(len(runs), len(sets))
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


def _make(request, seed: int, watched: Watched) -> None:
    """Has the host make a batch: every image with the same seed, so from the same noise."""
    count = len(watched.sets)
    subseed = request.subseed if request.subseed not in (None, -1) else 0
    make_pictures(request.copy(update={"seed": [seed] * count, "subseed": [subseed] * count, "batch_size": count,
                                       "n_iter": 1}), watched)


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
