"""The host's own request for one picture, from JSON."""

from __future__ import annotations

from modules import infotext_utils
from pydantic import ValidationError

from ....errors import SciArtError
from ....pipeline.requests import SCRIPT
from ....recipe import INFOTEXT_KEY


def txt2img_request(given: dict, task: str):
    """The host's txt2img request of these fields; what cannot be asked raises `SciArtError`. task: whose it is."""
    # when scripts are loaded it would list the settings before all extensions have theirs, and the API would lack them
    from modules.api import models

    try:
        request = models.StableDiffusionTxt2ImgProcessingAPI(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SciArtError("txt2img." + ".".join(map(str, first["loc"])), first["msg"]) from None
    for name in ("batch_size", "n_iter"):
        if getattr(request, name) not in (None, 1):
            raise SciArtError(f"txt2img.{name}", f"{getattr(request, name)}; {task} is of one picture: 1")
    if request.script_name:
        raise SciArtError("txt2img.script_name", f"{task} does not work with scripts of the list; leave it out")
    return request


def apply_infotext(api, request) -> None:
    """Fills in what the request's infotext says, where the request itself says nothing; then it has none any more."""
    if not request.infotext:
        return
    api.apply_infotext(request, "txt2img")
    request.infotext = None
    for name in ("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler"):
        if str(getattr(request, name)).startswith("Use same "):  # the page's words, which the API does not know
            setattr(request, name, None)


def take_recipe(request) -> object:
    """The recipe that is in `alwayson_scripts`, out of which it is taken, or else in the infotext; None: in neither."""
    scripts = dict(request.alwayson_scripts or {})
    given = [scripts.pop(name) for name in list(scripts) if name.lower() == SCRIPT.lower()]
    request.alwayson_scripts = scripts
    data = next(iter(given[0].get("args", [])), None) if given else None
    if data is None and request.infotext:
        return infotext_utils.parse_generation_parameters(request.infotext).get(INFOTEXT_KEY)
    return data
