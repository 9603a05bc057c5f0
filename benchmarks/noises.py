"""Which score of a noise tells whether the base model will paint all that the prompt names.

    python -m benchmarks.noises [--quick] [--seeds 400] [--cases two,three]

On the tiny world. From each noise the base model's picture is made, in which the oracle counts the kinds, and the look
ahead, whose attention is scored at its first evaluation, its last, and by the mean of those from progress 0.4 on, by
which `guidance.noises` chooses. Scores: InitNO's; clearness, the least over the subjects of a subject's mean attention
in its own mask less the largest of another's mask; distance, that of the two nearest subjects (`least_distance`). AUC:
the chance that of two noises of a prompt, one good and one not, the good one has the higher score; Spearman's rank
correlation of score and outcome; and the share of good noises among the best of 2, 4 and 8 by the chosen score. Seeds
from 30000, on which settings were chosen too. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from sciart_ext.guidance.alike import separated
from sciart_ext.guidance.masks import masks_from_attention, smoothed
from sciart_ext.guidance.noises import least_distance
from sciart_ext.recipe.masking import MaskingSettings

from . import record
from .tinyworld import steering
from .tinyworld.judging import area, loaded
from .tinyworld.looking import looked_at, seen_ahead
from .tinyworld.sampling import Pictures

FIRST_SEED = 30_000
AMONG = (2, 4, 8)
SAMPLES = 4000
CHOSEN = "distance, mean"
"""by which `guidance.noises` chooses"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="24 noises of two")
    parser.add_argument("--seeds", type=int, help="noises of each case (default 400, quick 24)")
    parser.add_argument("--cases", help=f"of {','.join(steering.CASES)} (default two,three)")
    options = parser.parse_args()
    count = options.seeds or (24 if options.quick else 400)
    began, commit = time.monotonic(), record.commit()
    measured: dict = {"seeds": count}
    cases = options.cases.split(",") if options.cases else ["two"] if options.quick else ["two", "three"]
    for case in cases:
        measured[case] = of_case(case, range(FIRST_SEED, FIRST_SEED + count))
        print(case, json.dumps(measured[case]), flush=True)
    measured.update(minutes=round((time.monotonic() - began) / 60, 1), machine=record.machine("cpu"), commit=commit)
    if not options.quick:
        record.write("noises", measured)
    print(json.dumps({case: {"auc": measured[case]["auc"], "best_of": measured[case]["best_of"]} for case in cases}))


def of_case(case: str, seeds: range) -> dict:
    """AUC and rank correlation of each score, means over the prompts of a case; and what choosing by the last gives."""
    pictures, oracle = loaded("cpu")
    good = np.array(steering.layouts(pictures, oracle, seeds, case))
    groups = np.array_split(np.arange(len(seeds)), len(steering.CASES[case]))
    auc: dict[str, list[float]] = {}
    rank: dict[str, list[float]] = {}
    best: dict[int, list[float]] = {among: [] for among in AMONG}
    for names, group in zip(steering.CASES[case], groups):
        outcome = good[group]
        for name, score in scores(pictures, names, np.array(seeds)[group]).items():
            auc.setdefault(name, []).append(area(score, outcome))
            rank.setdefault(name, []).append(float(spearmanr(score, outcome).statistic))
            if name == CHOSEN:
                for among in AMONG:
                    best[among].append(best_of(score, outcome, among))
    return {"good": round(float(good.mean()), 4), "auc": means(auc), "rank_correlation": means(rank),
            "best_of": means(best)}


def scores(pictures: Pictures, names: Sequence[str], seeds: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the noises (seeds,), by name."""
    found: dict[str, list[Tensor]] = {}
    for chosen in pictures.batches(seeds):
        seen = seen_ahead(pictures, names, chosen)
        of_each = {"InitNO's, first": smoothed(seen[0]).flatten(2).amax(2).amin(1)}
        for told, maps in (("first", seen[0]), ("last", seen[-1]), ("mean", looked_at(seen))):
            one, _ = separated(maps)
            of_each[f"clearness, {told}"] = clearness(one, masks_from_attention(one, MaskingSettings().threshold))
            of_each[f"distance, {told}"] = least_distance(one)
        for name, score in of_each.items():
            found.setdefault(name, []).append(score)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def clearness(attention: Tensor, masks: Tensor) -> Tensor:
    """Of each image (images,) the least, over its subjects, of a subject's mean attention in its own mask less the
    largest of its means in the others'. attention: (images, subjects, h, w); masks: bool, the same shape."""
    inside = torch.einsum("ashw,amhw->asm", attention.float(), masks.float())
    means = inside / masks.flatten(2).sum(2).clamp(min=1).unsqueeze(1)
    own = means.diagonal(dim1=1, dim2=2)
    others = means.masked_fill(torch.eye(means.shape[1], dtype=torch.bool), 0)
    return (own - others.amax(2)).amin(1)


def best_of(score: np.ndarray, good: np.ndarray, among: int) -> float:
    """The share of good noises, where of so many drawn at random the one with the highest score is taken."""
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.choice(len(score), among, replace=False) for _ in range(SAMPLES)])
    return float(good[np.take_along_axis(drawn, score[drawn].argmax(1)[:, None], 1)].mean())


def means(found: dict) -> dict:
    """Over prompts; None for what no prompt has."""
    known = {str(name): [value for value in values if np.isfinite(value)] for name, values in found.items()}
    return {name: round(float(np.mean(values)), 4) if values else None for name, values in known.items()}


if __name__ == "__main__":
    main()
