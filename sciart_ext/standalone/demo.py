"""`make demo`: the science-imagination preset on the tiny model, on one page.

Each scene without LoRAs, with each LoRA alone, with the preset's mixture and with a mixture that changes over the
steps; what the oracle sees in them, and how far each LoRA moves them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from ..colour import distances
from ..presets import PresetStore, resolve
from ..recipe import Recipe, parse_recipe
from ..world import MODEL
from ..world.oracle import Oracle, Reading
from . import prepare
from .demo_page import Shown, demo_page

PRESET = "science-imagination"
SCENES = ("a rocket and a planet in space", "a submarine and an octopus in the sea",
          "a flying car and a robot in the city")
SCHEDULES = {"child": [[0, 0.2], [0.5, 0.9]], "watercolor": [[0, 0.2], [1, 0.9]], "science": [[0, 1.0], [0.6, 0.3]]}


def main() -> None:
    """Writes `index.html` and its pictures."""
    parser = argparse.ArgumentParser(description="The science-imagination preset on the tiny model, on one page.")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--steps", type=int, help="default: the preset's")
    options = parser.parse_args()
    prepare()
    started = time.perf_counter()
    page = make_demo(options.out, options.steps)
    print(f"{page} ({time.perf_counter() - started:.0f} s)")


def make_demo(out: Path, steps: int | None = None) -> Path:
    """The page of the demonstration. Returns its path."""
    from .generate import Settings, generate, load_loras
    from .infotext import save_png
    from .models import load_pipeline

    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # its layers are too small to share, and threads that wait for each other slow it down
    pipe, oracle = load_pipeline(MODEL, device="cpu"), Oracle.load()
    recipe, txt2img = preset()
    scenes = []
    for number, prompt in enumerate(SCENES, 1):
        settings = Settings(prompt, steps=steps or txt2img["steps"], seed=txt2img["seed"],
                            sampler=txt2img["sampler_name"], cfg_scale=txt2img["cfg_scale"])
        pictures = {}
        for title, part in parts_of(recipe).items():
            picture = generate(pipe, part, settings, load_loras(part, MODEL / "loras"), MODEL.name)
            pictures[title] = picture.image.convert("RGB")
            save_png(picture.image, out / f"{number}_{title.replace(' ', '_')}.png", picture.infotext)
            print(f"{prompt}, {title}: {picture.seconds:.1f} s", flush=True)
        readings = oracle.read([np.asarray(picture) for picture in pictures.values()])
        scenes.append({title: Shown(pictures[title], reading) for title, reading in zip(pictures, readings)})
    page = out / "index.html"
    page.write_text(demo_page(settings, dict(zip(SCENES, scenes)), recipe, scheduled(recipe),
                              strengths(scenes), shares_of_change(recipe, scenes)), encoding="utf-8")
    return page


def preset() -> tuple[Recipe, dict]:
    """The preset's recipe, its roles played by the tiny model's LoRAs of the same names, and its txt2img settings."""
    store = PresetStore()
    found = store.read(PRESET)
    roles = {role: role for role in found.roles()}
    return resolve(parse_recipe({"preset": PRESET, "roles": roles}), store), found.data["txt2img"]


def parts_of(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes to compare: `base` without LoRAs, `only NAME`, `mixture`, `changing mixture`, `without NAME`."""
    names = [lora.label for lora in recipe.loras]
    parts = {"base": parse_recipe({"enabled": False})}
    parts.update({f"only {name}": _keep(recipe, {name}) for name in names})
    parts.update({"mixture": recipe, "changing mixture": scheduled(recipe)})
    parts.update({f"without {name}": _keep(recipe, set(names) - {name}) for name in names})
    return parts


def scheduled(recipe: Recipe) -> Recipe:
    """The same LoRAs: structure from science first, child's hand and watercolor later."""
    return parse_recipe({"loras": [{"name": lora.name, "schedule": SCHEDULES[lora.name]} for lora in recipe.loras]})


def strengths(scenes: list[dict[str, Shown]]) -> dict[str, dict[str, float]]:
    """How strong the oracle finds each style, by kind of picture: means over the scenes."""
    def mean(title: str, style: str) -> float:
        return float(np.mean([scene[title].reading.styles[style] for scene in scenes]))

    reading: Reading = scenes[0]["base"].reading
    return {title: {style: mean(title, style) for style in reading.styles} for title in scenes[0]}


def shares_of_change(recipe: Recipe, scenes: list[dict[str, Shown]]) -> dict[str, tuple[float, float]]:
    """Per LoRA, mean ΔE over pixels and scenes: it alone against the base, and the mixture without it against it."""
    def distance(first: str, second: str) -> float:
        return float(np.mean([distances(np.asarray(scene[first].picture), np.asarray(scene[second].picture)).mean()
                              for scene in scenes]))

    return {lora.label: (distance(f"only {lora.label}", "base"), distance(f"without {lora.label}", "mixture"))
            for lora in recipe.loras}


def _keep(recipe: Recipe, names: set[str]) -> Recipe:
    return recipe.copy(update={"loras": [lora for lora in recipe.loras if lora.label in names]})


if __name__ == "__main__":
    main()
