"""Which masks lie where the subjects will be: ours, FreeFuse's, and FreeFuse's way on our attention.

    python -m benchmarks.masks [--quick] [--seeds 200] [--cases two,three,same_class]

On the tiny world, with the noises from which the base model paints all kinds that its prompt names. What is right are
the oracle's boxes in that picture. Of each way's masks: the intersection over union with the box; which share of the
mask lies in the box; which share of the box is covered; and the share of the picture that a mask has. Ways:

- look ahead: `masks_from_attention` of the look ahead, as the masks of pictures are made
- look ahead, with similarity: of the same attention FreeFuse's contrast, cores and similarity of the self-attention's
  output in the look ahead's last evaluation, shared out evenly
- both: what these have where the look ahead's masks cover
- FreeFuse: its own, at the end of its first stage, with the settings of `benchmarks.steer`, and as published; not for
  two of one kind, whom its words do not tell apart

Means over subjects and seeds from 10000. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciart_ext.compose.region import region_cells
from sciart_ext.guidance.alike import separated
from sciart_ext.guidance.masks import masks_from_attention, resized
from sciart_ext.recipe import parse_recipe
from sciart_ext.recipe.masking import MaskingSettings
from sciart_ext.world.oracle import Reading
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, SIDE

from . import record
from .peers.freefuse import FreeFuse, InMasks, first_stage, words_of
from .peers.freefuse_masks import freefuse_masks
from .peers.ways import SETTINGS
from .tinyworld import steering
from .tinyworld.judging import loaded
from .tinyworld.looking import LastOutput, looked_at, seen_ahead
from .tinyworld.sampling import Pictures

LATENTS = (SIDE // 8, SIDE // 8)
Masks = dict[str, Tensor]
"""of each way: bool (seeds, subjects, h, w)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="12 noises of each case")
    parser.add_argument("--seeds", type=int, help="noises of each case (default 200, quick 12)")
    parser.add_argument("--cases", default=",".join(steering.CASES), help="default: all")
    options = parser.parse_args()
    count = options.seeds or (12 if options.quick else 200)
    began, commit = time.monotonic(), record.commit()
    seeds = range(steering.FIRST_SEED, steering.FIRST_SEED + count)
    measured: dict = {"seeds": count}
    for case in options.cases.split(","):
        measured[case] = of_case(case, seeds)
        print(case, json.dumps(measured[case]), flush=True)
    whole = {"minutes": round((time.monotonic() - began) / 60, 1), "machine": record.machine("cpu"), "commit": commit}
    if not options.quick:
        record.write("masks", measured | whole)
    print(json.dumps(measured))


def of_case(case: str, seeds: range) -> dict:
    """Of each way its figures, and of how many noises."""
    pictures, oracle = loaded("cpu")
    found: dict[str, list[np.ndarray]] = {}
    for names, chosen in zip(steering.CASES[case], np.array_split(np.array(seeds), len(steering.CASES[case]))):
        kinds = [INDIVIDUALS[name] for name in names]
        readings = oracle.read(pictures.make(steering.prompt_of([KINDS[kind] for kind in kinds]), chosen))
        shown = [(seed, boxes) for seed, boxes in zip(chosen, (boxes_of(one, kinds) for one in readings)) if boxes]
        if not shown:
            continue
        for way, masks in ways(pictures, names, [seed for seed, _ in shown]).items():
            found.setdefault(way, []).extend(
                best(mask, orders) for mask, (_, orders) in zip(masks, shown))
    figures = ("iou", "in_box", "covered", "area")
    return {way: dict(zip(figures, np.mean(values, 0).round(4).tolist()), noises=len(values))
            for way, values in found.items()}


def boxes_of(reading: Reading, kinds: Sequence[str]) -> list[list[tuple]]:
    """The boxes that could be the subjects', in each way to give them to subjects of one kind; none where a kind is
    missing."""
    of_kind = {kind: [seen.box for seen in reading.objects if seen.kind == kind] for kind in kinds}
    if any(len(of_kind[kind]) < kinds.count(kind) for kind in kinds):
        return []
    orders = itertools.product(*(itertools.permutations(of_kind[kind], kinds.count(kind)) for kind in of_kind))
    return [[left[kind].pop(0) for kind in kinds]
            for left in ({kind: list(own) for kind, own in zip(of_kind, order)} for order in orders)]


def best(masks: Tensor, orders: list[list[tuple]]) -> np.ndarray:
    """Means over the subjects of IoU, share in the box, share of the box, and area: of the order of boxes that fits."""
    size = tuple(masks.shape[-2:])
    return max((np.mean([against(mask, region_cells([side / SIDE for side in np.clip(box, 0, SIDE)], size).bool())
                         for mask, box in zip(masks, boxes)], 0) for boxes in orders), key=lambda figures: figures[0])


def against(mask: Tensor, box: Tensor) -> tuple[float, float, float, float]:
    both = float((mask & box).sum())
    return (both / max(float((mask | box).sum()), 1), both / max(float(mask.sum()), 1),
            both / max(float(box.sum()), 1), float(mask.float().mean()))


@torch.no_grad()
def ways(pictures: Pictures, names: Sequence[str], seeds: Sequence[int]) -> Masks:
    """What each way makes of these noises, on the latents' grid."""
    parts: dict[str, list[Tensor]] = {}
    for chosen in pictures.batches(seeds):
        for way, masks in (looking_ahead(pictures, names, chosen) | freefuses(pictures, names, chosen)).items():
            parts.setdefault(way, []).append(masks)
    return {way: torch.cat(masks) for way, masks in parts.items()}


def looking_ahead(pictures: Pictures, names: Sequence[str], seeds: Sequence[int]) -> Masks:
    with LastOutput(pictures.pipe.unet.get_submodule(f"{SETTINGS['freefuse'].block}.attn1")) as output:
        told, _ = separated(looked_at(seen_ahead(pictures, names, seeds)))
    ours = resized(masks_from_attention(told, MaskingSettings().threshold), LATENTS)
    similar = resized(torch.stack([freefuse_masks(*image) for image in zip(told, output.value)]), LATENTS)
    return {"look ahead": ours, "look ahead, with similarity": similar, "both": similar & ours.any(1, keepdim=True)}


def freefuses(pictures: Pictures, names: Sequence[str], seeds: Sequence[int]) -> Masks:
    kinds = [KINDS[INDIVIDUALS[name]] for name in names]
    if len(set(kinds)) < len(kinds):
        return {}
    recipe = parse_recipe({"loras": [{"name": name.replace(" ", "-"), "weight": 1.0} for name in names]})
    _, sampling, rows = pictures.prepared(steering.prompt_of(kinds), recipe, InMasks, range(len(names)))
    _, unit = pictures.noise(seeds)
    words = words_of(pictures.pipe.tokenizer, steering.prompt_of(kinds), kinds)
    found = {}
    for way, settings in (("FreeFuse", SETTINGS["freefuse"]), ("FreeFuse, as published", FreeFuse())):
        images = zip(*first_stage(rows, sampling, unit, words, settings))
        found[way] = resized(torch.stack([freefuse_masks(*image, settings.core, settings.temperature, settings.balance)
                                          for image in images]), LATENTS)
    return found


if __name__ == "__main__":
    main()
