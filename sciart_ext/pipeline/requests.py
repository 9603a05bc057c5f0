"""What the stages ask of the WebUI's API: its own field names, and those of ControlNet and ADetailer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import SciArtError, shown
from .settings import ADetailer, ControlNet, Img2Img

KEPT = ("prompt", "negative_prompt", "styles", "seed", "subseed", "subseed_strength", "steps", "cfg_scale",
        "sampler_name", "scheduler", "override_settings")
"""what img2img takes over from txt2img"""
SCRIPT = "SciArt"


def control_unit(stage: ControlNet, model: str, picture: str) -> dict:
    """ControlNet's script. model: by its whole name; picture: base64 of what it follows."""
    return {"ControlNet": {"args": [{
        "enabled": True, "module": stage.preprocessor, "model": model, "weight": stage.weight, "image": picture,
        "guidance_start": stage.guidance_start, "guidance_end": stage.guidance_end, "pixel_perfect": True}]}}


def face_repair(stage: ADetailer) -> dict:
    """ADetailer's script."""
    return {"ADetailer": {"args": [True, False, {
        "ad_model": stage.model, "ad_confidence": stage.confidence, "ad_mask_k": stage.mask_k,
        "ad_denoising_strength": stage.denoising_strength}]}}


def repair_settings(stage: ADetailer, script_names: str) -> dict:
    """ADetailer's settings for one picture. script_names: which scripts take part in repairs by the user's settings."""
    others = [name.strip() for name in script_names.split(",") if name.strip().lower() not in ("", SCRIPT.lower())]
    return {"ad_only_selected_scripts": True,
            "ad_script_names": ",".join([*others, *([SCRIPT.lower()] if stage.with_loras else [])])}


def img2img_of(txt2img: dict, stage: Img2Img, recipe: dict, picture: str, size: tuple[int, int]) -> dict:
    """The request that makes a txt2img request's picture once more. picture: base64; size: width, height."""
    kept = {name: txt2img[name] for name in KEPT if txt2img.get(name) is not None}
    steps = {} if stage.steps is None else {"steps": stage.steps}
    return {**kept, **steps, "init_images": [picture], "width": size[0], "height": size[1],
            "denoising_strength": stage.denoising_strength, "alwayson_scripts": {SCRIPT: {"args": [recipe]}}}


def model_named(wanted: str, names: Sequence[str], sdxl: bool, field: str) -> str:
    """The one of the names that is `wanted`, or else has it in it, in upper or lower case; of several rather one with
    xl in it for SDXL, and one without for others."""
    whole = [name for name in names if wanted.lower() in (name.lower(), name.rpartition(" [")[0].lower())]
    parts = [name for name in names if wanted.lower() in name.lower()]
    found = sorted(whole or parts, key=lambda name: ("xl" in name.lower()) != sdxl)
    if not found:
        raise SciArtError(field, f"none is called or has in its name {shown(wanted)}; accepted: {_listed(names)}")
    return found[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name for name in names if name != "None") or "(none is installed)"
