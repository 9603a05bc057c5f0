"""The host's own way from a request to its pictures, one at a time: the user's settings stay as they are.

Nothing is set for all, such as the format of pictures: they are taken as the host has made them.
"""

from __future__ import annotations

import copy
import functools
from contextlib import nullcontext

from fastapi import FastAPI
from modules import call_queue, postprocessing, shared
from PIL import Image

from ....pipeline.requests import SCRIPT
from ...webui.watched import Asked
from ..neighbours.swallowed import nothing_swallowed
from ..settings import settings_kept


@functools.lru_cache(maxsize=1)
def host_api():
    """The host's API on an application of its own, for --api need not be on. It takes no turn in the host's queue by
    itself: whoever calls it has."""
    from modules.api.api import Api  # it imports the whole page, which is not there yet when scripts are loaded

    return Api(FastAPI(), nullcontext())


def make_pictures(request, asked: Asked, field: str | None = None):
    """What the host makes of its txt2img or img2img request, with `asked` as the script's argument: its `Processed`.

    field: of the error that is raised where another extension fails, and the host would go on without it; None: the
    host goes on.
    """
    make = host_api().img2imgapi if hasattr(request, "init_images") else host_api().text2imgapi
    asking = copy.copy(request)  # its own copy() leaves out what its class says is no part of a picture
    asking.send_images = asking.save_images = False
    asking.alwayson_scripts = {**(request.alwayson_scripts or {}), SCRIPT: {"args": [asked]}}
    noticing = nullcontext() if field is None else nothing_swallowed(field)
    with call_queue.queue_lock, settings_kept(request.override_settings or {}), noticing:
        make(asking)
    return asked.processed


def upscaled(picture: Image.Image, upscaler: str, scale: float, field: str) -> tuple[Image.Image, bool]:
    """The picture made larger as in Extras, and whether that was interrupted."""
    from modules.api import models  # as above

    asked = vars(models.ExtrasSingleImageRequest(image="", upscaling_resize=scale))
    asked.update(image=picture, extras_upscaler_1=upscaler, extras_upscaler_2=asked.pop("upscaler_2"))
    del asked["upscaler_1"]
    with call_queue.queue_lock, nothing_swallowed(field):
        made, *_ = postprocessing.run_extras(extras_mode=0, image_folder="", input_dir="", output_dir="",
                                             save_output=False, **asked)
        return made[0].convert("RGB"), shared.state.interrupted
