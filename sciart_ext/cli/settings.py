"""How the command line is told what to draw: prompt, steps, sampler, size; a preset's settings are the defaults."""

from __future__ import annotations

import random
from typing import Any

import rich_click as click

from ..errors import SciArtError
from ..presets import PresetStore
from ..standalone.model_facts import ModelFacts
from ..standalone.samplers.names import AUTOMATIC, SAMPLERS, SCHEDULES, find, steps_run
from .command import PICTURE, options
from .values import HIGHEST_SEED, Number, Word

# option: field of a preset's txt2img, default
SETTINGS = {"prompt": ("prompt", ""), "negative": ("negative_prompt", ""), "steps": ("steps", 20),
            "seed": ("seed", 777), "sampler": ("sampler_name", "Euler a"), "scheduler": ("scheduler", AUTOMATIC),
            "cfg": ("cfg_scale", 7.0), "width": ("width", None), "height": ("height", None)}
_SIZE = Number(64, 8192)


PICTURE_OPTIONS = options(
    click.option("--prompt", metavar="TEXT", panel=PICTURE, help="What to draw; default: the preset's."),
    click.option("--negative", metavar="TEXT", panel=PICTURE, help="The negative prompt; default: the preset's."),
    click.option("--steps", type=Number(1, 1000), panel=PICTURE, help="Default: the preset's, or 20."),
    click.option("--seed", panel=PICTURE,
                 type=Number(-1, HIGHEST_SEED, told=f"-1 for a random one, or 0 to {HIGHEST_SEED}"),
                 help="-1: a random one; default: the preset's, or 777."),
    click.option("--sampler", type=Word("NAME", lambda: SAMPLERS), panel=PICTURE,
                 help=f"As the WebUI calls it: {', '.join(SAMPLERS)}; default: the preset's, or Euler a."),
    click.option("--scheduler", type=Word("NAME", lambda: SCHEDULES), panel=PICTURE,
                 help=f"Schedule type as the WebUI calls it: {', '.join(SCHEDULES)}; default: the preset's, or "
                      f"{AUTOMATIC}."),
    click.option("--cfg", type=Number(0, 100, whole=False), panel=PICTURE,
                 help="CFG scale; default: the preset's, or 7."),
    click.option("--clip-skip", type=Number(1, 12), panel=PICTURE, help="As the WebUI counts it; default: 1."),
    click.option("--width", type=_SIZE, panel=PICTURE,
                 help="A multiple of 8; default: the preset's, or the model's own."),
    click.option("--height", type=_SIZE, panel=PICTURE, help="The same."))


def preset_settings(data: dict, store: PresetStore) -> dict:
    """What a recipe's preset says of txt2img, by the host's API names."""
    return store.read(data["preset"]).data["txt2img"] if data.get("preset") else {}


def settings_of(given: Any, preset: dict, model: ModelFacts) -> tuple[dict[str, Any], list[str]]:
    """The fields of `standalone.generate.Settings`, checked before anything heavy is imported, and notes on them.
    Raises `SciArtError`."""
    notes = []
    values = {name: _first(getattr(given, name), preset.get(field), default)
              for name, (field, default) in SETTINGS.items()}
    if values["seed"] == -1:
        values["seed"] = random.randrange(2**32)
    steps_run(find(values["sampler"], values["scheduler"])[0], values["steps"])
    override = preset.get("override_settings", {}).get("CLIP_stop_at_last_layers")
    clip_skip = _first(given.clip_skip, override, 1)
    if not values["prompt"].strip():
        raise SciArtError("prompt", "missing; give --prompt, or a preset that has one")
    if given.width is None and given.height is None and _is_too_large(preset, model):
        notes.append(f"the preset's {preset['width']} × {preset['height']} are for larger models; here it is as large "
                     "as this model's own pictures, unless --width and --height say otherwise")
        values["width"] = values["height"] = None
    for name in ("width", "height"):
        if values[name] is not None and values[name] % 8:
            low = values[name] // 8 * 8
            raise SciArtError(name, f"{values[name]} is not a multiple of 8; accepted: {low} or {low + 8}, for example")
    if model.layers is not None and clip_skip > model.layers:
        raise SciArtError("clip-skip", f"{clip_skip} is out of range; the text encoder has {model.layers} layers")
    if preset.get("enable_hr"):
        notes.append("the preset's hires pass is not made here; this is the first pass")
    named = {"negative": "negative_prompt", "cfg": "cfg_scale"}
    return {**{named.get(name, name): value for name, value in values.items()}, "clip_skip": clip_skip}, notes


def _is_too_large(preset: dict, model: ModelFacts) -> bool:
    return model.side is not None and min(preset.get("width", 0), preset.get("height", 0)) > 2 * model.side


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
