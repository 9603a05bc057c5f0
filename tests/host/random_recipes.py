"""Random valid recipes, and the pictures they are for: the same ones for the same number."""

from __future__ import annotations

import base64
import io
import random

import numpy as np
from PIL import Image

from sciart_ext.host.webui.axes import COMPOSES
from sciart_ext.lora.blocks import KINDS, LABELS
from sciart_ext.recipe.combining import METHODS
from sciart_ext.recipe.composition import READ_BY

ODD_NAME = "어린이, 크레용 (v2)"
"""a file name with all that an infotext has to quote"""
NAMES = ("child", "watercolor", "science", ODD_NAME)
SUBJECTS = ("rocket", "robot", "planet")
TRIGGERS = (None, "red striped", "노란 \"visor\"", "big: round,")
PROMPTS = ("a rocket and a robot near a planet", "a (rocket:1.2), a robot: big, and a planet", "rocket, robot\nand planet")
SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "DDIM", "LMS")


def random_request(number: int) -> tuple[dict, dict]:
    """(recipe, the API's fields of its picture)."""
    rng = random.Random(number)
    compose = COMPOSES[number % len(COMPOSES)]
    hires = rng.random() < 0.3
    count = rng.randint(2 if compose != "merge" else 1, 3)
    loras = [_lora(rng, name, hires) for name in rng.sample(NAMES, count)]
    recipe: dict = {"loras": loras}
    _composed(rng, recipe, compose)
    places = compose == "masked" or recipe.get("composition", {}).get("rows") == "one"
    if rng.random() < 0.4 and not places:
        recipe["combine"] = rng.choice(METHODS)
        if recipe["combine"] != "linear":
            recipe["combining"] = _some(rng, density=lambda: _round(rng, 0.1, 1), seed=lambda: rng.randrange(2**32),
                                        majority=lambda: rng.choice(("total", "frequency")),
                                        directions=lambda: rng.randint(1, 20), strength=lambda: rng.random())
    recipe.update(_some(rng, 0.3, execution=lambda: rng.choice(("auto", "merge", "branch")),
                        memory_limit_mb=lambda: rng.choice((0, 0.25, 3, 512))))
    if recipe.get("execution") == "merge":
        recipe.pop("memory_limit_mb", None)  # it would be refused where it is too small
    return recipe, _picture(rng, hires)


def _picture(rng: random.Random, hires: bool) -> dict:
    payload = {"prompt": rng.choice(PROMPTS), "negative_prompt": rng.choice(("", "blurry, dark", "grey: \"dull\"")),
               "seed": rng.randrange(2**32), "steps": rng.randint(2, 4), "cfg_scale": rng.choice((1.5, 7, 4.25)),
               "sampler_name": rng.choice(SAMPLERS)}
    if hires:
        payload.update(enable_hr=True, hr_scale=1.5, hr_upscaler="Latent", denoising_strength=0.6,
                       hr_second_pass_steps=2)
    return payload


def _lora(rng: random.Random, name: str, hires: bool) -> dict:
    lora = {"name": name, **_weight(rng)}
    lora.update(_some(rng, 0.3, te_weight=lambda: _round(rng, -1, 1), blocks=lambda: _blocks(rng),
                      apply_to=lambda: rng.choice(("both", "cond", "uncond"))))
    if hires:
        lora.update(_some(rng, hires=lambda: _weight(rng)))
    if lora.get("apply_to", "both") == "both":
        for one in (lora, *([lora["hires"]] if "hires" in lora else [])):
            one.update(_some(rng, 0.3, negative=lambda: {**_weight(rng), **_some(rng, te_weight=lambda: 0.25)}))
    return lora


def _weight(rng: random.Random) -> dict:
    if rng.random() < 0.5:
        return {"weight": rng.choice((0, 1, -0.5, _round(rng, 0, 1.2), rng.random()))}
    if rng.random() < 0.1:
        return {"schedule": "0.8:start=2:stop=4"}
    points = sorted(rng.choices([0, 0.1, 0.25, 1 / 3, 0.5, 0.65, 0.9, 1], k=rng.randint(1, 2))
                    + rng.sample([0.05, 0.4, 0.7, 0.95], rng.randint(0, 2)))  # two at one place: a jump
    if rng.random() < 0.3:
        points = [f"s{round(point * 3) + 1}" for point in dict.fromkeys(points)][:2]
    schedule = [[place, _round(rng, -0.2, 1)] for place in points]
    text = ", ".join(f"{weight}@{place}" for place, weight in schedule)
    return {"schedule": rng.choice((schedule, text)), **_some(rng, curve=lambda: rng.choice(("linear", "step", "cosine")))}


def _blocks(rng: random.Random) -> object:
    if rng.random() < 0.3:
        return [_round(rng, 0, 1) for _ in range(rng.choice((12, 17, 20, 26)))]
    names = rng.sample(["in", "mid", "out", *KINDS, *LABELS[1:]], rng.randint(1, 4))
    blocks = {name: _round(rng, 0, 1.5) if rng.random() < 0.7 else [[0, 0.2], [1, 1]] for name in names}
    return {**blocks, "BASE": 0.5} if rng.random() < 0.3 else blocks


def _composed(rng: random.Random, recipe: dict, compose: str) -> None:
    if compose != "merge":
        recipe["compose"] = compose
    if compose in ("contrastive", "masked"):
        for lora, subject in zip(recipe["loras"], SUBJECTS):
            lora["subject"] = subject
            lora.update(_some(rng, 0.4, trigger=lambda: rng.choice(TRIGGERS[1:]), region=lambda: _region(rng)))
    if compose == "masked":
        recipe["masking"] = {"threshold": _round(rng, 0, 0.5), "negative": _round(rng, 0, 1)}
    if compose == "contrastive":
        recipe["guidance"] = _some(
            rng, 0.3, strength=lambda: rng.choice((0, 12.5, 40)), until=lambda: _round(rng, 0, 1),
            refine=lambda: {"0": 2, "0.5": 1}, mask_threshold=lambda: _round(rng, 0.1, 0.9),
            temperature=lambda: _round(rng, 0.1, 2), opacity=lambda: [[0, 1], [1, _round(rng, 0, 1)]],
            masks=lambda: rng.random() < 0.5, regions=lambda: "attention", hires=lambda: False)
    if compose == "regions":
        for lora in recipe["loras"][:-1]:
            lora["region"] = _region(rng)
    values = {"period": lambda: rng.randint(1, 3), "temperature": lambda: _round(rng, 0.01, 1),
              "patch": lambda: rng.randint(1, 4), "recenter": lambda: _round(rng, 0, 1),
              "rows": lambda: "one", "feather": lambda: _round(rng, 0, 0.5), "hires": lambda: False,
              "order": lambda: rng.sample([lora["name"] for lora in recipe["loras"]], len(recipe["loras"]))}
    chosen = _some(rng, **{name: values[name] for name in READ_BY.get(compose, ())})
    if chosen:
        recipe["composition"] = chosen


def _region(rng: random.Random) -> object:
    if rng.random() < 0.4:
        mask = np.zeros((16, 16), np.uint8)
        mask[rng.randint(0, 8):, rng.randint(0, 8):] = rng.choice((255, 120))
        file = io.BytesIO()
        Image.fromarray(mask).save(file, "PNG")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    x, y = _round(rng, 0, 0.5), _round(rng, 0, 0.5)
    return [x, y, round(x + 0.5, 3), round(y + 0.5, 3)]


def _some(rng: random.Random, share: float = 0.5, **makers) -> dict:
    """Of each with that probability what its maker makes."""
    return {name: make() for name, make in makers.items() if rng.random() < share}


def _round(rng: random.Random, low: float, high: float) -> float:
    return round(rng.uniform(low, high), 3)
