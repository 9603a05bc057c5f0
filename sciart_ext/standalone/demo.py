"""`make demo`: the science-imagination preset on the tiny model, and what each LoRA did, on one page.

Each scene without LoRAs, with each LoRA alone, with each left out and with the preset's mixture, from the same noise in
one batch; and with a mixture that changes over the steps. What the oracle sees in them, and the report of the first.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..influence.folder import save_report
from ..influence.report import Report
from ..influence.subsets import ask
from ..presets import PresetStore, resolve
from ..recipe import Recipe, parse_recipe
from ..whole_file import write_text
from ..world import MODEL
from ..world.oracle import Oracle
from . import prepare
from .demo_page import Shown, demo_page

PRESET = "science-imagination"
SCENES = ("a rocket and a planet in space", "a submarine and an octopus in the sea",
          "a flying car and a robot in the city")
SCHEDULES = {"child": [[0, 0.2], [0.5, 0.9]], "watercolor": [[0, 0.2], [1, 0.9]], "science": [[0, 1.0], [0.6, 0.3]]}
CHANGING = "changing weights"


def main() -> None:
    """Writes `index.html`, its pictures, and a folder with the report of the first scene."""
    parser = argparse.ArgumentParser(description="The science-imagination preset on the tiny model, on one page.")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--steps", type=int, help="default: the preset's")
    options = parser.parse_args()
    prepare()
    started = time.perf_counter()
    page, told = make_demo(options.out, options.steps)
    print("\n".join(told.sentences()))
    print(f"{page} ({time.perf_counter() - started:.0f} s)")


def make_demo(out: Path, steps: int | None = None) -> tuple[Path, Report]:
    """The page of the demonstration: its path, and the report of its first scene."""
    from .explain import explain
    from .generate import Settings, generate, load_loras
    from .infotext import save_png
    from .models import load_pipeline

    torch.set_num_threads(1)  # its layers are too small to share, and threads that wait for each other slow it down
    pipe, oracle = load_pipeline(MODEL, device="cpu"), Oracle.load()
    recipe, txt2img = preset()
    changing = scheduled(recipe)
    loras, question = load_loras(recipe, MODEL / "loras"), ask(len(recipe.loras))
    scenes, reports = [], []
    for number, prompt in enumerate(SCENES, 1):
        started = time.perf_counter()
        settings = Settings(prompt, steps=steps or txt2img["steps"], seed=txt2img["seed"],
                            sampler=txt2img["sampler_name"], cfg_scale=txt2img["cfg_scale"])
        told = explain(pipe, recipe, settings, loras, question, model_name=MODEL.name)
        pictures = {told.title(one): Image.fromarray(told.pictures[one]) for one in question.sets}
        last = generate(pipe, changing, settings, loras, MODEL.name)
        pictures[CHANGING] = last.image.convert("RGB")
        save_png(last.image, out / f"{number}_changing_weights.png", last.infotext)
        readings = oracle.read([np.asarray(picture) for picture in pictures.values()])
        scenes.append({title: Shown(pictures[title], reading) for title, reading in zip(pictures, readings)})
        reports.append(told)
        print(f"{prompt}: {len(pictures)} pictures, {time.perf_counter() - started:.1f} s", flush=True)
    save_report(reports[0], out / "influence")
    page = out / "index.html"
    write_text(page, demo_page(settings, dict(zip(SCENES, scenes)), recipe, changing, strengths(scenes), reports))
    return page, reports[0]


def preset() -> tuple[Recipe, dict]:
    """The preset's recipe, its roles played by the tiny model's LoRAs of the same names, and its txt2img settings."""
    store = PresetStore()
    found = store.read(PRESET)
    roles = {role: role for role in found.roles()}
    return resolve(parse_recipe({"preset": PRESET, "roles": roles}), store), found.data["txt2img"]


def scheduled(recipe: Recipe) -> Recipe:
    """The same LoRAs: structure from science first, child's hand and watercolor later."""
    return parse_recipe({"loras": [{"name": lora.name, "schedule": SCHEDULES[lora.name]} for lora in recipe.loras]})


def strengths(scenes: list[dict[str, Shown]]) -> dict[str, dict[str, float]]:
    """How strong the oracle finds each style, by kind of picture: means over the scenes."""
    def mean(title: str, style: str) -> float:
        return float(np.mean([scene[title].reading.styles[style] for scene in scenes]))

    first = scenes[0]
    return {title: {style: mean(title, style) for style in first[title].reading.styles} for title in first}


if __name__ == "__main__":
    main()
