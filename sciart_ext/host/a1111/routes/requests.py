"""The host's own request for one picture, from JSON of whoever asks: what the host would stumble over is refused."""

from __future__ import annotations

from modules import infotext_utils, shared
from pydantic import ValidationError

from ....errors import SciArtError, did_you_mean, quoted, shown
from ....pipeline.requests import SCRIPT
from ....recipe import INFOTEXT_KEY
from ....recipe.infotext_line import check_readable
from ....recipe.schedule import check_number
from ....recipe.schema import check_count
from .pictures import host_api

MOST_PROMPT = 20_000
"""characters"""
MOST_PIXELS = 2**27
"""of a picture, its hires pass and its upscaling"""
_COUNTS = {"steps": (1, 10_000), "width": (8, 16_384), "height": (8, 16_384), "seed": (-1, 2**63 - 1),
           "hr_second_pass_steps": (0, 10_000), "hr_resize_x": (0, 16_384), "hr_resize_y": (0, 16_384)}
_NUMBERS = {"cfg_scale": (0.0, 1000.0), "denoising_strength": (0.0, 1.0), "hr_scale": (1.0, 16.0)}
_TEXTS = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
_NEEDED = ("prompt", "steps", "width", "height", "seed", "cfg_scale")


def txt2img_request(given: dict, task: str):
    """The host's txt2img request of these fields; what cannot be asked raises `SciArtError`. task: whose it is."""
    # when scripts are loaded it would list the settings before all extensions have theirs, and the API would lack them
    from modules.api import models

    try:
        request = models.StableDiffusionTxt2ImgProcessingAPI(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SciArtError("txt2img." + ".".join(map(str, first["loc"])), quoted(first["msg"])) from None
    for name in ("batch_size", "n_iter"):
        if getattr(request, name) not in (None, 1):
            raise SciArtError(f"txt2img.{name}", f"{getattr(request, name)}; {task} is of one picture: 1")
    if request.script_name:
        raise SciArtError("txt2img.script_name", f"{task} does not work with scripts of the list; leave it out")
    for name, script in (request.alwayson_scripts or {}).items():
        where = f"txt2img.alwayson_scripts.{quoted(name)}"
        if not isinstance(script, dict):
            raise SciArtError(where, f"expected an object with args, got {shown(script)}")
        if not isinstance(script.get("args", []), list):
            raise SciArtError(f"{where}.args", f"expected a list, got {shown(script['args'])}")
    if request.infotext:
        check_infotext(request.infotext)
    return request


def apply_infotext(request) -> None:
    """Fills in what the request's infotext says, where the request itself says nothing; then it has none any more, and
    all that the host needs is there and within bounds."""
    if request.infotext:
        try:
            host_api().apply_infotext(request, "txt2img")
        except Exception as error:  # of the host's, and of every extension's that reads infotext
            raise SciArtError("txt2img.infotext", f"the WebUI cannot read it: {shown(str(error))}") from error
        request.infotext = None
        for name in ("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler"):
            if str(getattr(request, name)).startswith("Use same "):  # the page's words, which the API does not know
                setattr(request, name, None)
    _check_bounds(request)
    _check_settings(request.override_settings or {})


def take_recipe(request) -> object:
    """The recipe that is in `alwayson_scripts`, out of which it is taken, or else in the infotext; None: in neither."""
    scripts = dict(request.alwayson_scripts or {})
    given = [scripts.pop(name) for name in list(scripts) if name.lower() == SCRIPT.lower()]
    request.alwayson_scripts = scripts
    data = next(iter(given[0].get("args", [])), None) if given else None
    if data is None and request.infotext:
        return infotext_utils.parse_generation_parameters(request.infotext).get(INFOTEXT_KEY)
    return data


def check_infotext(text: object) -> None:
    """Raises `SciArtError` for what is no infotext, or would hold up the host while it reads it."""
    if not isinstance(text, str):
        raise SciArtError("txt2img.infotext", f"expected a text, got {shown(text)}")
    check_readable(text, "txt2img.infotext")


def check_enlarged(request, scale: float, field: str) -> None:
    """Raises `SciArtError` where the picture, made `scale` times as wide and high, has too many pixels."""
    hires = request.hr_scale or 1.0 if request.enable_hr else 1.0
    pixels = max(request.width * request.height * hires**2, (request.hr_resize_x or 0) * (request.hr_resize_y or 0))
    if pixels * scale**2 > MOST_PIXELS:
        raise SciArtError(field, f"a picture of {pixels * scale**2:.0f} pixels; at most {MOST_PIXELS} are accepted")


def _check_bounds(request) -> None:
    for name in _NEEDED:
        if getattr(request, name) is None:
            raise SciArtError(f"txt2img.{name}", "missing")
    for name in _TEXTS:
        text = getattr(request, name)
        if text is not None and len(text) > MOST_PROMPT:
            raise SciArtError(f"txt2img.{name}", f"{len(text)} characters; at most {MOST_PROMPT} are accepted")
    for name, bounds in _COUNTS.items():
        _checked(request, name, check_count, bounds)
    for name, bounds in _NUMBERS.items():
        _checked(request, name, lambda value, low, high: check_number(value, "", low, high), bounds)
    check_enlarged(request, 1.0, "txt2img.hr_scale" if request.enable_hr else "txt2img.width")


def _checked(request, name: str, check, bounds: tuple[float, float]) -> None:
    value = getattr(request, name)
    if value is None:
        return
    try:
        check(value, *bounds)
    except SciArtError as error:
        raise SciArtError(f"txt2img.{name}", error.message) from None


def _check_settings(given: dict) -> None:
    """The host takes every value for a setting, and fails where it needs it."""
    for name, value in given.items():
        where = f"txt2img.override_settings.{quoted(name)}"
        known = shared.opts.data_labels
        if name not in known:
            raise SciArtError(where, f"no such setting; {did_you_mean(name, known)}")
        default = shared.opts.get_default(name)
        numbers = isinstance(default, (int, float)) and isinstance(value, (int, float)) \
            and isinstance(default, bool) == isinstance(value, bool)
        if value is not None and default is not None and not numbers and not isinstance(value, type(default)):
            raise SciArtError(where, f"expected {type(default).__name__}, got {shown(value)}")
        bounds = known[name].component_args
        if numbers and isinstance(bounds, dict) and {"minimum", "maximum"} <= bounds.keys():
            if not bounds["minimum"] <= value <= bounds["maximum"]:
                raise SciArtError(where, f"{value:g} is out of range; accepted: {bounds['minimum']:g} to "
                                         f"{bounds['maximum']:g}")
