"""A pipeline in this host: its stages one after the other, by the host's own API, from a preset or a request."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable

from fastapi import FastAPI
from modules import images, infotext_utils, modelloader, shared
from PIL import Image

from ....errors import SciArtError, did_you_mean, shown
from ....json_text import check_json, read_json
from ....pipeline.poses import pose_picture
from ....pipeline.requests import control_unit, face_repair, img2img_of, model_named, repair_settings
from ....pipeline.settings import INFOTEXT_KEY, decoded, dump_pipeline, overridden, parse_pipeline
from ....pipeline.stages import Made, Progress, Stage
from ....presets import resolve
from ....recipe import Recipe, dump_recipe, is_off, parse_recipe
from ....report.html_page import base64_png
from ...webui.adetailer import PLACED
from ...webui.bodies import PipelineRequest
from ...webui.watched import Asked
from ..model.session import loaded_model
from ..neighbours.installed import check_installed, models_of
from ..settings import OwnPresets
from .pictures import make_pictures, upscaled
from .requests import apply_infotext, check_enlarged, check_infotext, take_recipe, txt2img_request

NOT_IN_INFOTEXT = ("alwayson_scripts", "infotext", "send_images", "save_images", "force_task_id")


class _Cancelled(Exception):
    """The host was told to stop."""


def pictures_of(app: FastAPI, body: PipelineRequest, stop: Callable[[], bool]) -> dict:
    """The pictures of a pipeline's stages as JSON data. Raises `SciArtError`."""
    told = run_pipeline(app, body, Progress(stop))
    return {"cancelled": told.cancelled, "notes": told.notes, "pipeline": dump_pipeline(told.pipeline),
            "images": [_encoded(stage) for stage in told.stages],
            "stages": [{"name": stage.name, "infotext": stage.infotext, "width": stage.picture.width,
                        "height": stage.picture.height} for stage in told.stages]}


def run_pipeline(app: FastAPI, body: PipelineRequest, progress: Progress) -> Made:
    """Runs the stages. app: the host's, where other extensions have their routes."""
    return _Pipeline(app, body, progress).made()


class _Pipeline:
    """One request: everything is checked when it is made, then the stages run."""

    def __init__(self, app: FastAPI, body: PipelineRequest, progress: Progress):
        self.progress, self.save = progress, body.save_images
        preset = OwnPresets().read(body.preset).data if body.preset else {}
        before = _before(body.txt2img)
        base = {} if body.txt2img.get("infotext") else preset.get("txt2img", {})
        if before:
            base = before["txt2img"]
        self.request = txt2img_request({**base, **body.txt2img}, "a pipeline")
        self.recipe = _recipe(body, self.request)
        if before:
            self.request.infotext = None  # what it says of txt2img is of the last stage
        stages = overridden(before.get("pipeline", preset.get("pipeline", {})), body.pipeline)
        whole = parse_pipeline(stages)
        if not whole.stages():
            raise SciArtError("pipeline", "no stage; give some, or a preset that has some")
        self.stages = whole.without(body.without)
        check_installed(self.stages.stages())
        self._check_models(app)
        if self.stages.adetailer and self.stages.adetailer.with_loras and self.recipe.compose in PLACED:
            raise SciArtError("pipeline.adetailer.with_loras",
                              f"{self.recipe.compose} tells where in the whole picture a LoRA acts, which a face alone "
                              "cannot follow; accepted with it: false")
        apply_infotext(self.request)
        if self.stages.upscale:
            check_enlarged(self.request, self.stages.upscale.scale, "pipeline.upscale.scale")
        if self.request.seed in (None, -1):
            self.request.seed = random.randrange(2**32)
        self.notes: list[str] = []

    def made(self) -> Made:
        """All stages' pictures; those so far where it is cancelled."""
        steps = [("txt2img", self._txt2img), ("img2img", self._img2img), ("upscale", self._upscale)]
        steps = [(name, make) for name, make in steps if name == "txt2img" or name in self.stages.stages()]
        stages: list[Stage] = []
        try:
            for number, (name, make) in enumerate(steps, 1):
                self.progress.name, self.progress.number, self.progress.stages = name, number, len(steps)
                if self.progress.stop():
                    raise _Cancelled
                picture, infotext = make(stages[-1] if stages else None)
                stages.append(Stage(name, picture, self._with_pipeline(infotext) if number == len(steps) else infotext))
                if self.save:
                    self._keep(stages[-1])
        except _Cancelled:
            return Made(stages, self.stages, self.notes, cancelled=True)
        return Made(stages, self.stages, self.notes)

    def _check_finished(self, interrupted: bool) -> None:
        """Of a stage that the host has just ended: interrupted it has half a picture, or none."""
        if self.progress.stop() or interrupted:
            raise _Cancelled

    def _first(self, request, asked: Asked, field: str) -> tuple[Image.Image, str]:
        """The first picture that the host makes of a request, and its infotext."""
        made = make_pictures(request, asked, field)
        self._check_finished(asked.interrupted)
        return made.images[0].convert("RGB"), made.infotexts[0]

    def _asked(self) -> Asked:
        return Asked(dump_recipe(self.recipe), self.progress.stop)

    def _check_models(self, app: FastAPI) -> None:
        sdxl = getattr(loaded_model(), "is_sdxl", False)
        if self.stages.controlnet:
            self.control_model = model_named(self.stages.controlnet.model, models_of(app, "controlnet"), sdxl,
                                             "pipeline.controlnet.model")
            if self.stages.controlnet.pose.startswith("sha256:"):
                raise SciArtError("pipeline.controlnet.pose", "the picture was made with a pose of one's own, which "
                                                              "its infotext does not hold; give it, as a data URL")
        if self.stages.adetailer:
            names = models_of(app, "adetailer")
            if self.stages.adetailer.model not in names:
                hint = did_you_mean(self.stages.adetailer.model, names)
                raise SciArtError("pipeline.adetailer.model",
                                  f"ADetailer has no {shown(self.stages.adetailer.model)}; {hint}")
        if self.stages.upscale:
            _check_upscaler(self.stages.upscale.upscaler)

    def _txt2img(self, _: None) -> tuple[Image.Image, str]:
        request, stages = self.request, self.stages
        scripts = dict(request.alwayson_scripts)
        settings = dict(request.override_settings or {})
        if stages.controlnet:
            pose = _pose(stages.controlnet.pose, request.width, request.height)
            scripts.update(control_unit(stages.controlnet, self.control_model, base64_png(pose)))
        if stages.adetailer:
            scripts.update(face_repair(stages.adetailer))
            settings.update(repair_settings(stages.adetailer, shared.opts.ad_script_names))
        asked = self._asked()
        first = self._first(request.copy(update={"alwayson_scripts": scripts, "override_settings": settings}), asked,
                            "txt2img")
        if stages.adetailer and asked.jobs <= 1 + bool(request.enable_hr):  # a repair is a job of the host's
            self.notes.append(f"adetailer: {stages.adetailer.model} found nothing to repair")
        return first

    def _img2img(self, before: Stage) -> tuple[Image.Image, str]:
        from modules.api import models  # as in requests.py

        given = img2img_of(vars(self.request), self.stages.img2img, dump_recipe(self.recipe),
                           base64_png(before.picture), before.picture.size)
        return self._first(models.StableDiffusionImg2ImgProcessingAPI(**given), self._asked(), "img2img")

    def _upscale(self, before: Stage) -> tuple[Image.Image, str]:
        stage = self.stages.upscale
        picture, interrupted = upscaled(before.picture, stage.upscaler, stage.scale, "upscale")
        infotext = (f"{before.infotext}, Postprocess upscale by: {stage.scale:g}, "
                    f"Postprocess upscaler: {infotext_utils.quote(stage.upscaler)}")
        self._check_finished(interrupted)
        return picture, infotext

    def _with_pipeline(self, infotext: str) -> str:
        """The last picture's infotext: with all that is needed to run the pipeline again."""
        stages = dump_pipeline(self.stages)
        if stages.get("controlnet", {}).get("pose", "").startswith("data:"):
            stages["controlnet"]["pose"] = "sha256:" + hashlib.sha256(stages["controlnet"]["pose"].encode()).hexdigest()
        given = {name: value for name, value in self.request.dict(exclude_defaults=True).items()
                 if name not in NOT_IN_INFOTEXT}
        text = json.dumps({"txt2img": given, "pipeline": stages}, ensure_ascii=False, separators=(",", ":"))
        return f"{infotext}, {INFOTEXT_KEY}: {infotext_utils.quote(text)}"

    def _keep(self, stage: Stage) -> None:
        opts = shared.opts
        folder = {"txt2img": opts.outdir_txt2img_samples, "img2img": opts.outdir_img2img_samples,
                  "upscale": opts.outdir_extras_samples}[stage.name]
        images.save_image(stage.picture, opts.outdir_samples or folder, "", self.request.seed, self.request.prompt,
                          opts.samples_format, info=stage.infotext)


def _before(given: dict) -> dict:
    """What the request's infotext says of the pipeline that made its picture: `txt2img` and `pipeline`, or nothing."""
    infotext, field = given.get("infotext") or "", f"txt2img.infotext.{INFOTEXT_KEY}"
    check_infotext(infotext)
    text = infotext_utils.parse_generation_parameters(infotext).get(INFOTEXT_KEY)
    if not text:
        return {}
    try:
        data = read_json(text)
    except ValueError as error:
        raise SciArtError(field, f"not valid JSON: {error}") from None
    check_json(data, field)
    if not isinstance(data, dict) or not all(isinstance(data.get(name, {}), dict) for name in ("txt2img", "pipeline")) \
            or "txt2img" not in data:
        raise SciArtError(field, "expected an object with txt2img and pipeline")
    return data


def _recipe(body: PipelineRequest, request) -> Recipe:
    """The request's recipe, or else the preset's, with what is given beside it; resolved."""
    data = take_recipe(request)
    if isinstance(data, str):
        data = dump_recipe(parse_recipe(data))
    if data is None and body.preset:
        data = {"preset": body.preset}
    data = {**(data or {}), **body.recipe}
    if not data or is_off(data):
        raise SciArtError("recipe", "missing; give one, a preset, or the infotext of a picture that was made with one")
    return resolve(parse_recipe(data), OwnPresets())


def _pose(pose: str, width: int, height: int) -> Image.Image:
    return decoded(pose) if pose.startswith("data:") else pose_picture(pose, width, height)


def _check_upscaler(name: str) -> None:
    """Raises `SciArtError` where the host has none of this name, or its file cannot be had: the host would go on and
    only stretch the picture."""
    known = {one.name: one for one in shared.sd_upscalers if one.name != "None"}
    if name not in known:
        raise SciArtError("pipeline.upscale.upscaler", f"no upscaler {shown(name)}; {did_you_mean(name, known)}")
    one = known[name]
    if str(one.local_data_path or "").startswith("http"):
        try:
            modelloader.load_file_from_url(one.local_data_path, model_dir=one.scaler.model_download_path)
        except OSError as error:
            raise SciArtError("pipeline.upscale.upscaler", f"the file of {shown(name)} is not there and cannot be "
                                                           f"downloaded from {one.local_data_path} ({error}); others: "
                                                           f"{', '.join(sorted(known))}") from None


def _encoded(stage: Stage) -> str:
    """Base64 of the file as the host's API would send it, its infotext in it."""
    from modules.api.api import encode_pil_to_base64

    picture = stage.picture.copy()
    picture.info = {"parameters": stage.infotext}
    return encode_pil_to_base64(picture).decode("ascii")
