"""Influence on the tiny model, where the oracle knows what is where: how much of a subject LoRA's heatmap lies on its
subject, how evenly styles' lie, and whether shares and leaving out tell the same."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from sciart_ext.influence.analysis import Influence, analyse
from sciart_ext.influence.measures import evenness, mass_within
from sciart_ext.influence.runs import Run
from sciart_ext.influence.subsets import ask
from sciart_ext.lora.file import load_lora
from sciart_ext.recipe import Recipe, parse_recipe
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL
from sciart_ext.world.oracle import Oracle
from sciart_ext.world.scenes import INDIVIDUALS

STEPS, FIRST_SEED = 20, 10_000
STYLES = {"child": 0.65, "watercolor": 0.55, "science": 0.5}
ALONE = {"rocket": "a {} in space", "robot": "a {} in space", "submarine": "a {} in the sea",
         "planet": "a {} in space"}
BESIDE = {"rocket": "a {} and a planet in space", "robot": "a {} and a rocket in space",
          "submarine": "a {} and an octopus in the sea", "planet": "a rocket and a {} in space"}
APART = 0.1
"""shares that differ by less are alike"""
MARGIN = 8
"""pixels around the oracle's box: the autoencoder's cells, one of which spreads what changes at its edge"""


def measure(seeds: int, styled_seeds: int, batch: int) -> dict:
    """Of each individual, alone and beside another thing, merged and steered; and of the styles; over so many seeds."""
    torch.set_num_threads(1)
    pipe, oracle = load_pipeline(MODEL, device="cpu"), Oracle.load()
    result: dict = {"subjects": {}, "evenness": {}, "residual": 0.0}
    for case, scenes, steered in (("alone", ALONE, False), ("beside", BESIDE, False), ("steered", BESIDE, True)):
        masses: list[float] = []
        told = {}
        for name, kind in INDIVIDUALS.items():
            told[name] = _subject(pipe, oracle, name, kind, scenes[kind], steered, seeds, batch)
            masses += told[name].pop("masses")
            print(case, name, told[name], flush=True)
        result["subjects"][case] = {**told, "mass": _quartiles(masses), "n": len(masses)}
    agreeing: list[bool] = []
    evens: dict[str, list[float]] = {name: [] for name in STYLES}
    styles = parse_recipe({"loras": [{"name": name, "weight": weight} for name, weight in STYLES.items()]})
    for seed in range(FIRST_SEED, FIRST_SEED + styled_seeds):
        found, _ = _explained(pipe, "a rocket and a planet in space", styles, seed, batch)
        result["residual"] = max(result["residual"], found.shares.residual)
        left_out = found.left_out.heat.mean((1, 2))
        for a, b in combinations(range(len(STYLES)), 2):
            if abs(found.shares.parts[a] - found.shares.parts[b]) > APART:
                agreeing.append(bool((found.shares.parts[a] > found.shares.parts[b]) == (left_out[a] > left_out[b])))
        for name, heat in zip(STYLES, found.alone.heat):
            evens[name].append(evenness(heat))
    result["evenness"].update({name: _quartiles(values) for name, values in evens.items()})
    result["order_as_left_out"] = {"share": round(float(np.mean(agreeing)), 3), "pairs": len(agreeing)}
    return result


def _subject(pipe, oracle: Oracle, name: str, kind: str, scene: str, steered: bool, seeds: int, batch: int) -> dict:
    """Quartiles of the heatmap's mass in the box of the thing, of the box's share of the picture, and of evenness."""
    trigger = name[:-len(kind) - 1]
    prompt = scene.format(kind if steered else name)
    how = {"compose": "contrastive"} if steered else {}
    subject = {"subject": kind, "trigger": trigger} if steered else {}
    recipe = parse_recipe({"loras": [{"name": name.replace(" ", "-"), "weight": 1.0, **subject}], **how})
    masses, boxes, evens = [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        found, runs = _explained(pipe, prompt, recipe, seed, batch)
        box = _box(oracle, runs, kind)
        if box is None:
            continue  # no such thing in either picture: it has no true place
        heat = found.alone.heat[0]
        masses.append(mass_within(heat, box))
        boxes.append((box[2] - box[0]) * (box[3] - box[1]) / heat.numel())
        evens.append(evenness(heat))
    return {"masses": masses, "mass": _quartiles(masses), "box": _quartiles(boxes), "evenness": _quartiles(evens),
            "n": len(masses)}


def _explained(pipe, prompt: str, recipe: Recipe, seed: int, batch: int) -> tuple[Influence, dict[int, Run]]:
    names = [lora.name for lora in recipe.loras]
    loras = [load_lora(MODEL / "loras" / f"{name}.safetensors") for name in names]
    question, runs = ask(len(names)), {}
    run_sets(pipe, recipe, Settings(prompt, steps=STEPS, seed=seed, cfg_scale=6.0), loras, question.sets, runs, batch)
    return analyse(names, question, runs), runs


def _box(oracle: Oracle, runs: dict[int, Run], kind: str) -> tuple[float, float, float, float] | None:
    """What encloses the things of this kind, without the LoRA and with it, with a margin; pixels."""
    boxes = [one.box for reading in oracle.read([runs[0].picture, runs[1].picture]) for one in reading.objects
             if one.kind == kind]
    if not boxes:
        return None
    side = runs[0].picture.shape[0]
    x0, y0, x1, y1 = (pick(values) for pick, values in zip((min, min, max, max), zip(*boxes)))
    return max(x0 - MARGIN, 0), max(y0 - MARGIN, 0), min(x1 + MARGIN, side), min(y1 + MARGIN, side)


def _quartiles(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, [0.25, 0.5, 0.75])]
