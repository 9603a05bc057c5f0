"""The commands that make pictures: `generate` makes one, `influence` tells what each LoRA did to one."""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import asdict
from pathlib import Path

from .. import standalone
from ..errors import SciArtError
from ..influence.subsets import ORDERS, SUBSETS, ask
from ..presets import PresetStore
from ..recipe import Recipe, dump_recipe
from ..world import MODEL
from .command import add_command, number
from .progress import show_progress
from .recipe import add_recipe_options, recipe_data, resolved_recipe

# option: field of a preset's txt2img (or None), default
_SETTINGS = {"prompt": ("prompt", ""), "negative": ("negative_prompt", ""), "steps": ("steps", 20),
             "seed": ("seed", 777), "sampler": ("sampler_name", "Euler a"), "scheduler": ("scheduler", "Automatic"),
             "cfg": ("cfg_scale", 7.0), "width": ("width", None), "height": ("height", None)}


def add_picture_commands(commands) -> None:
    """Adds both to the parser's commands."""
    command = add_command(commands, "generate", "make a picture",
                          '--prompt "a rocket in space" --lora child=0.8 --out rocket.png')
    _add_options(command)
    command.add_argument("--out", type=Path, default=Path("sciart.png"), help="the picture; default: sciart.png")
    command.set_defaults(run=_generate)

    command = add_command(commands, "influence", "tell what each LoRA did to a picture",
                          '--prompt "a rocket in space" --lora child=0.65 --lora watercolor=0.55')
    _add_options(command)
    command.add_argument("--subsets", default="all", help="which pictures to make: "
                         f"{', '.join(SUBSETS)}; default: all")
    command.add_argument("--words", help="of the prompt, whose attention is shown: rocket,robot; - for none; default: "
                                         "those that tell something")
    command.add_argument("--orders", type=int, help="of more than four LoRAs, from which their shares are estimated; "
                                                    f"default: {ORDERS}")
    command.add_argument("--at-once", type=int, default=8, help="pictures in a batch; fewer take less memory; "
                                                                     "default: 8")
    command.add_argument("--out", type=Path, default=Path("influence"), help="folder; default: influence")
    command.set_defaults(run=_influence)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, default=MODEL,
                         help="diffusers folder, .safetensors or .ckpt; default: the tiny model")
    command.add_argument("--config", type=Path, help="for a single file: a diffusers folder of the same architecture, "
                                                     "so that nothing is looked up online")
    command.add_argument("--device", help="cpu, cuda, mps; default: cuda where there is one")
    command.add_argument("--lora-dir", type=Path, help="where LoRA names are looked up; default: the tiny model's own")
    add_recipe_options(command)
    command.add_argument("--prompt", help="what to draw; with --preset, default: the preset's")
    command.add_argument("--negative", metavar="PROMPT", help="the negative prompt")
    command.add_argument("--steps", type=int, help="default: the preset's, or 20")
    command.add_argument("--seed", type=int, help="-1: a random one; default: the preset's, or 777")
    command.add_argument("--sampler", help="as the WebUI calls it: DPM++ 2M Karras, ...; default: the preset's, or "
                                             "Euler a")
    command.add_argument("--scheduler", help="Automatic, Uniform, Karras or Exponential; default: the preset's, or "
                                               "Automatic")
    command.add_argument("--cfg", type=number, help="CFG scale; default: the preset's, or 7")
    command.add_argument("--clip-skip", type=int, default=None, help="as the WebUI counts it; default: 1")
    command.add_argument("--width", type=int, help="a multiple of 8; default: the preset's, or the model's own")
    command.add_argument("--height", type=int, help="the same")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def _generate(args: argparse.Namespace) -> None:
    recipe, preset = _recipe_of(args)
    standalone.prepare()
    from ..standalone.generate import generate, load_loras
    from ..standalone.infotext import save_png
    from ..standalone.models import load_pipeline

    settings = _settings_of(args, preset)
    loras = load_loras(recipe, _lora_folder(args))
    pipe = load_pipeline(args.model, args.config, args.device)
    picture = generate(pipe, recipe, settings, loras, args.model.stem, None if args.quiet else show_progress)
    save_png(picture.image, args.out, picture.infotext)
    if picture.subjects is not None:
        save_png(picture.subjects, args.out.with_suffix(".subjects.png"), picture.infotext)
    if preset.get("enable_hr"):
        picture.notes.append("the preset's hires pass is not made here; this is the first pass")
    for note in picture.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{args.out} ({picture.seconds:.1f} s)")


def _influence(args: argparse.Namespace) -> None:
    recipe, preset = _recipe_of(args)
    if not recipe.enabled or not recipe.loras:
        raise SciArtError("loras", "missing; give --recipe, --preset or --lora")
    if not 1 <= args.at_once <= 256:
        raise SciArtError("at-once", f"{args.at_once} is out of range; accepted: 1 to 256")
    question = ask(len(recipe.loras), args.subsets, args.orders)
    standalone.prepare()
    from ..influence.folder import save_report
    from ..influence.kept import KeptRuns
    from ..standalone.explain import explain
    from ..standalone.generate import load_loras
    from ..standalone.models import load_pipeline

    settings = _settings_of(args, preset)
    words = None if args.words is None else [] if args.words == "-" else [word.strip()
                                                                          for word in args.words.split(",")]
    loras = load_loras(recipe, _lora_folder(args))
    pipe = load_pipeline(args.model, args.config, args.device)
    files = [(str(lora.path.resolve()), lora.path.stat().st_size, lora.path.stat().st_mtime) for lora in loras]
    runs = KeptRuns(args.out / "unfinished", [asdict(settings), dump_recipe(recipe), files, words, str(args.model)])
    try:
        told = explain(pipe, recipe, settings, loras, question, words, args.at_once,
                       None if args.quiet else show_progress, args.model.stem, runs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(runs)} of {len(question.sets)} pictures are made; the same command goes on from "
                                "there") from None
    print("\n".join(told.sentences()))
    print(save_report(told, args.out))
    runs.forget()


def _recipe_of(args: argparse.Namespace) -> tuple[Recipe, dict]:
    """The resolved recipe, and the settings of its preset."""
    store = PresetStore()
    data = recipe_data(args)
    preset = store.read(data["preset"]).data["txt2img"] if data.get("preset") else {}
    return resolved_recipe(data, store), preset


def _settings_of(args: argparse.Namespace, preset: dict):
    from ..standalone.generate import Settings

    values = {name: _first(getattr(args, name), preset.get(field), default)
              for name, (field, default) in _SETTINGS.items()}
    if values["seed"] == -1:
        values["seed"] = random.randrange(2**32)
    override = preset.get("override_settings", {}).get("CLIP_stop_at_last_layers")
    return Settings(
        prompt=values["prompt"], negative_prompt=values["negative"], steps=values["steps"], seed=values["seed"],
        sampler=values["sampler"], scheduler=values["scheduler"], cfg_scale=values["cfg"], width=values["width"],
        height=values["height"], clip_skip=_first(args.clip_skip, override, 1))


def _lora_folder(args: argparse.Namespace) -> Path | None:
    return args.lora_dir or (MODEL / "loras" if args.model == MODEL else None)


def _first(*values: object):
    return next((value for value in values if value is not None), None)
