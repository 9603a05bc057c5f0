"""`make demo`: what SciArt does, on one page, with pictures that the tiny model makes meanwhile.

Two subjects merged and steered, three styles each alone and mixed, a mixture that changes beside one that does not, and
what each LoRA did. The oracle says what is in every picture; every picture has the command that makes it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..influence.report import Report
from ..recipe import Recipe, parse_recipe
from ..world import MODEL
from ..world.oracle import Oracle, Reading
from . import prepare

SAMPLER, STEPS, CFG = "DPM++ 2M", 16, 6.0

INDIVIDUALS = ("red striped rocket", "yellow visor robot")
MERGED, STEERED = "merged", "steered"
SUBJECT_SEEDS = (1, 2, 3, 4, 5, 6)
"""the first six: none is chosen"""
SUBJECTS = {
    MERGED: ("a red striped rocket and a yellow visor robot in the sky", {"loras": [
        {"name": "red-striped-rocket", "weight": 1}, {"name": "yellow-visor-robot", "weight": 1}]}),
    STEERED: ("a rocket and a robot in the sky", {"compose": "contrastive", "loras": [
        {"name": "red-striped-rocket", "weight": 1, "subject": "rocket", "trigger": "red striped"},
        {"name": "yellow-visor-robot", "weight": 1, "subject": "robot", "trigger": "yellow visor"}]}),
}

STYLE_SEED = 2
STYLE_PROMPTS = ("a submarine in the sea", "a robot in the city", "a planet in space")
BOTH = {"child": 0.8, "watercolor": 1}
CONSTANT, THEN_CHILD, THEN_WATERCOLOR = "child + watercolor", "watercolor, then child", "child, then watercolor"
STYLES = {"no LoRA": {}, "child": {"child": 1}, "watercolor": {"watercolor": 1}, "science": {"science": 1},
          CONSTANT: BOTH}
"""title → weights: those at which each style can be seen"""

EARLY, LATE = "1@0, 0@0.2", "0@0, 1@0.2"
CHANGING = {CONSTANT: BOTH, THEN_CHILD: {"child": LATE, "watercolor": EARLY},
            THEN_WATERCOLOR: {"child": EARLY, "watercolor": LATE}}


@dataclass(frozen=True)
class Order:
    """Pictures that one command makes: one for each seed. recipe: plain JSON data."""

    title: str
    prompt: str
    seeds: tuple[int, ...]
    recipe: Mapping

    @property
    def parsed(self) -> Recipe:
        return parse_recipe(dict(self.recipe) if self.recipe else {"enabled": False})

    @property
    def stem(self) -> str:
        """Of its files' names: of one picture with the prompt's thing."""
        thing = f"{self.prompt.split()[1]} " if len(self.seeds) == 1 else ""
        return "-".join(re.findall(r"\w+", f"{thing}{self.title}"))

    def files(self) -> list[str]:
        """The pictures' names, as the command calls them."""
        return [f"{self.stem}.png"] if len(self.seeds) == 1 else [f"{self.stem}-{seed}.png" for seed in self.seeds]

    def command(self) -> str:
        """It runs as it stands, in the folder where the demonstration was made."""
        seeds = ["--seed", str(self.seeds[0])] if len(self.seeds) == 1 else [
            "--seeds", f"{self.seeds[0]}-{self.seeds[-1]}"]
        return shlex.join([_python(), "-m", "sciart_ext", "generate", "--prompt", self.prompt, "--sampler", SAMPLER,
                           "--steps", str(STEPS), "--cfg", f"{CFG:g}", *seeds, *self._mixture(),
                           "--out", f"{self.stem}.png"])

    def _mixture(self) -> list[str]:
        """The recipe, as options where they can say it."""
        if self.recipe.get("compose"):
            return ["--recipe", json.dumps(self.recipe)]
        return [word for lora in self.recipe.get("loras", ())
                for word in ("--lora", f"{lora['name']}={lora.get('schedule', lora.get('weight'))}")]


@dataclass(frozen=True)
class Made:
    """The pictures of an order, what the oracle sees in them, and their infotexts."""

    order: Order
    pictures: Sequence[Image.Image]
    readings: Sequence[Reading]
    infotexts: Sequence[str]


@dataclass(frozen=True)
class Demo:
    """All that is shown. subjects: merged and steered; styles, changing: by prompt, then by title; told: what each LoRA
    did in the first prompt's constant mixture, and `strengths`: the oracle's of its pictures by their titles."""

    subjects: Mapping[str, Made]
    styles: Mapping[str, Mapping[str, Made]]
    changing: Mapping[str, Mapping[str, Made]]
    told: Report
    strengths: Mapping[str, Mapping[str, float]]
    seconds: float

    @property
    def made(self) -> list[Made]:
        """Each once."""
        rows = (made for row in (self.styles, self.changing) for by_title in row.values() for made in by_title.values())
        return [*self.subjects.values(), *{id(made): made for made in rows}.values()]


def main() -> None:
    """Writes `index.html`, its pictures with their recipes in them, and the whole report of the first mixture."""
    parser = argparse.ArgumentParser(description="What SciArt does, on one page, with the tiny model.")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    options = parser.parse_args()
    prepare()
    print(f"{len(orders())} mixtures are drawn by the tiny model; on one core it takes about a minute.", flush=True)
    page = write_demo(make_demo(), options.out)
    print(f"Open {page} in a browser.")


def orders() -> list[Order]:
    """What is made, in the order of the page."""
    subjects = [Order(title, prompt, SUBJECT_SEEDS, recipe) for title, (prompt, recipe) in SUBJECTS.items()]
    styles = [_styled(title, prompt, weights) for prompt in STYLE_PROMPTS for title, weights in STYLES.items()]
    changing = [_styled(title, prompt, weights) for prompt in STYLE_PROMPTS for title, weights in CHANGING.items()
                if title not in STYLES]
    return [*subjects, *styles, *changing]


def make_demo(steps: int = STEPS) -> Demo:
    """The pictures, the oracle's readings and the report."""
    import torch

    from ..influence.subsets import ask
    from .explain import explain
    from .generate import Settings, generate_batch, load_loras
    from .models import load_pipeline

    torch.set_num_threads(1)  # its layers are too small to share, and threads that wait for each other slow it down
    started = time.perf_counter()
    pipe, oracle = load_pipeline(MODEL, device="cpu"), Oracle.load()
    settings = Settings("", steps=steps, sampler=SAMPLER, cfg_scale=CFG)

    def make(order: Order) -> Made:
        recipe = order.parsed
        made = generate_batch(pipe, recipe, replace(settings, prompt=order.prompt),
                              load_loras(recipe, MODEL / "loras"), order.seeds, MODEL.name)
        pictures = [one.image.convert("RGB") for one in made]
        print(f"{order.prompt}, {order.title}: {time.perf_counter() - started:.0f} s", flush=True)
        return Made(order, pictures, oracle.read([np.asarray(one) for one in pictures]), [one.infotext for one in made])

    made = [make(order) for order in orders()]
    first = replace(settings, prompt=STYLE_PROMPTS[0], seed=STYLE_SEED)
    recipe = _styled(CONSTANT, first.prompt, BOTH).parsed
    told = explain(pipe, recipe, first, load_loras(recipe, MODEL / "loras"), ask(len(recipe.loras)),
                   model_name=MODEL.name)
    seen = oracle.read(list(told.pictures.values()))
    strengths = {told.title(one): reading.styles for one, reading in zip(told.pictures, seen)}

    def by_prompt(titles: Mapping) -> dict[str, dict[str, Made]]:
        by_title = {(one.order.prompt, one.order.title): one for one in made}
        return {prompt: {title: by_title[prompt, title] for title in titles} for prompt in STYLE_PROMPTS}

    return Demo({one.order.title: one for one in made[:len(SUBJECTS)]}, by_prompt(STYLES), by_prompt(CHANGING), told,
                strengths, time.perf_counter() - started)


def write_demo(demo: Demo, out: Path) -> Path:
    """The page's path, once everything is written."""
    from ..influence.folder import save_report
    from ..whole_file import write_text
    from .demo_page import demo_page
    from .infotext import save_picture

    for one in demo.made:
        for name, picture, text in zip(one.order.files(), one.pictures, one.infotexts):
            save_picture(picture, out / name, text)
    save_report(demo.told, out / "influence")
    page = out / "index.html"
    write_text(page, demo_page(demo, docs_from(out)))
    return page


def docs_from(out: Path) -> str | None:
    """The way from a folder to the documentation, where this is a checkout."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.path.relpath(root, out.resolve())).as_posix() if (root / "docs" / "gallery.md").is_file() else None


def both_there(reading: Reading) -> bool:
    """Whether the oracle sees both individuals."""
    return all(reading.count(individual=name) >= 1 for name in INDIVIDUALS)


def mean_strengths(rows: Mapping[str, Mapping[str, Made]]) -> dict[str, dict[str, float]]:
    """By title, how strong the oracle finds each style: means over the prompts."""
    titles = next(iter(rows.values()))
    return {title: {style: float(np.mean([row[title].readings[0].styles[style] for row in rows.values()]))
                    for style in made.readings[0].styles} for title, made in titles.items()}


def _styled(title: str, prompt: str, weights: Mapping[str, float | str]) -> Order:
    loras = [{"name": name, "schedule" if isinstance(weight, str) else "weight": weight}
             for name, weight in weights.items()]
    return Order(title, prompt, (STYLE_SEED,), {"loras": loras} if loras else {})


def _python() -> str:
    """The running Python, from this folder where it is inside it."""
    path = Path(sys.executable)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    main()
