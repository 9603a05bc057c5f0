"""What the stages of a pipeline are set by: the field `pipeline` of presets and of `/sciart/v1/pipeline`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import SciArtError, did_you_mean, shown
from ..recipe import data_url
from ..recipe.schedule import check_number
from ..recipe.schema import Field, Name, Strict, ValidationError, check_bool, check_count, constr, refused, validator
from .poses import POSES

if TYPE_CHECKING:  # whoever reads presets decodes none
    from PIL import Image

INFOTEXT_KEY = "SciArt pipeline"
MOST_CHARACTERS = 32 << 20
"""of a picture as a data URL"""


Pose = constr(strict=True, max_length=MOST_CHARACTERS)


def _share(value: Any) -> float:
    return check_number(value, "", 0.0, 1.0)


class ControlNet(Strict):
    """A pose that txt2img follows."""

    pose: Pose = Field("portrait", description=f"{', '.join(POSES)}, or a picture as a data URL")
    preprocessor: Name = Field("none", description="ControlNet's, which finds the pose in a photograph (openpose, …); "
                                                   "none: the picture is a pose already")
    model: Name = Field("openpose", description="a ControlNet model, or a part of its name")
    weight: float = Field(1.0, description="of the ControlNet, 0 to 2")
    guidance_start: float = Field(0.0, description="share of the steps at which it begins")
    guidance_end: float = Field(1.0, description="share of the steps at which it ends")

    _shares = validator("guidance_start", "guidance_end", pre=True, allow_reuse=True)(_share)

    @validator("weight", pre=True)
    def _weight(cls, value):
        return check_number(value, "", 0.0, 2.0)

    @validator("guidance_end")
    def _order(cls, value, values):
        if value <= values.get("guidance_start", 0.0):
            raise SciArtError("", f"{value} is not after guidance_start")
        return value

    @validator("pose")
    def _known(cls, value):
        if value.startswith("data:"):
            decoded(value)
        elif value not in POSES:
            raise SciArtError("", f"no pose {shown(value)}; {did_you_mean(value, POSES)}, or a picture as a data URL")
        return value


class ADetailer(Strict):
    """Faces that are found and made again, larger, after txt2img."""

    model: Name = Field("face_yolov8n.pt", description="ADetailer's model, which finds them")
    confidence: float = Field(0.3, description="from which on something is a face")
    denoising_strength: float = Field(0.4, description="how far faces are made anew")
    mask_k: int = Field(0, description="at most so many of them, the largest; 0: all")
    with_loras: bool = Field(True, description="with the same recipe; false: without its LoRAs")

    _shares = validator("confidence", "denoising_strength", pre=True, allow_reuse=True)(_share)

    @validator("mask_k", pre=True)
    def _count(cls, value):
        return check_count(value, 0, 10)

    @validator("with_loras", pre=True)
    def _bool(cls, value):
        return check_bool(value)


class Img2Img(Strict):
    """The picture once more, lightly."""

    denoising_strength: float = Field(0.3, description="how far it may change")
    steps: int | None = Field(None, description="the WebUI runs this share of them; default: those of txt2img")

    _shares = validator("denoising_strength", pre=True, allow_reuse=True)(_share)

    @validator("steps", pre=True)
    def _count(cls, value):
        return None if value is None else check_count(value, 1, 150)


class Upscale(Strict):
    """The finished picture made larger, as in Extras."""

    upscaler: Name = Field("R-ESRGAN 4x+", description="one of the WebUI's")
    scale: float = Field(2.0, description="how many times as wide and high, 1 to 8")

    @validator("scale", pre=True)
    def _number(cls, value):
        return check_number(value, "", 1.0, 8.0)


class Pipeline(Strict):
    """The stages beside txt2img, in their order; one that is null is not run."""

    controlnet: ControlNet | None = None
    adetailer: ADetailer | None = None
    img2img: Img2Img | None = None
    upscale: Upscale | None = None

    def stages(self) -> list[str]:
        """Those that are run, beside txt2img."""
        return [name for name in STAGES if getattr(self, name) is not None]

    def without(self, names: Iterable[str]) -> Pipeline:
        """The same but for these stages; one that is not among them is refused."""
        for name in names:
            if name not in STAGES:
                raise SciArtError("without", f"no stage {shown(name)}; {did_you_mean(name, STAGES)}")
        return self.copy(update={name: None for name in names})


STAGES = tuple(Pipeline.__fields__)


def parse_pipeline(value: object, field: str = "pipeline") -> Pipeline:
    """A pipeline from JSON data; what does not fit raises `SciArtError` naming the field."""
    if not isinstance(value, dict):
        raise SciArtError(field, f"expected an object with {', '.join(STAGES)}")
    try:
        return Pipeline.parse_obj(value)
    except ValidationError as error:
        inner = refused(error, Pipeline)
        raise SciArtError(f"{field}.{inner.field}", inner.message) from None


def dump_pipeline(pipeline: Pipeline) -> dict:
    """As plain JSON data, stages that are not run left out."""
    return json.loads(pipeline.json(exclude_none=True))


def overridden(preset: dict[str, Any], given: dict[str, Any]) -> dict:
    """A preset's stages with what is given beside them, field by field; a stage given as null is not run."""
    both = {**preset}
    for name, fields in given.items():
        mix = isinstance(fields, dict) and isinstance(preset.get(name), dict)
        both[name] = {**preset[name], **fields} if mix else fields
    return both


def decoded(picture: str) -> Image.Image:
    """A picture given as a data URL, RGB. Raises `SciArtError` (without a field) for what is none."""
    wanted = "expected a picture as the text data:image/png;base64,…: PNG, JPEG, WebP"
    return data_url.decoded(picture, "the picture", wanted, ["PNG", "JPEG", "WEBP"], MOST_CHARACTERS).convert("RGB")
