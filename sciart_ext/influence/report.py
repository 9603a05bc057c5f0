"""All that is told of the influence of LoRAs on one picture: what the page, the folder and the API are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..report.heat import heat_sheet
from .analysis import Effects, Influence, analyse
from .measures import PHASES
from .paths import Paths, neighbour_paths, principal_paths
from .runs import Run
from .subsets import Question

DIGITS = 6


@dataclass(frozen=True)
class Report:
    """pictures: of each set, (h, w, 3), 8-bit; words: attention of each set to each word, (h, w); origin: the set that
    the paths start from; made: how the picture was made, plain JSON data."""

    influence: Influence
    question: Question
    pictures: dict[int, np.ndarray]
    words: dict[str, dict[int, Tensor]]
    paths: Paths
    neighbours: Paths | None
    origin: int
    made: dict

    @property
    def every(self) -> int:
        return (1 << self.question.count) - 1

    @property
    def final(self) -> int:
        """The largest set there is: all LoRAs, or without a picture of them none."""
        return self.every if self.every in self.pictures else 0

    def background(self, kind: str) -> np.ndarray:
        """The picture that effects of a kind (`effects_of`) are told against."""
        return self.pictures[0 if kind == "alone" else self.every]

    def sentences(self) -> list[str]:
        """One for each LoRA."""
        return self.influence.sentences({word: maps[self.final] for word, maps in self.words.items()})

    def title(self, one: int) -> str:
        """What a set is called."""
        names = self.influence.names
        inside = [name for k, name in enumerate(names) if one >> k & 1]
        if not inside:
            return "no LoRA"
        if len(inside) == len(names):
            return "all"
        if len(inside) == 1:
            return f"only {inside[0]}"
        if len(inside) == len(names) - 1:
            return f"without {next(name for k, name in enumerate(names) if not one >> k & 1)}"
        return " + ".join(inside)


def report(names: Sequence[str], question: Question, runs: Mapping[int, Run], words: Sequence[str],
           made: dict) -> Report:
    """From the question's runs, which know these words' attention; made: how the picture was made, plain JSON data."""
    influence = analyse(names, question, runs)
    pictures = {one: runs[one].picture for one in question.sets}
    size = next(iter(pictures.values())).shape[:2]
    attention = {word: {one: _grown(runs[one].words[i], size) for one in question.sets}
                 for i, word in enumerate(words)}
    origin = 0 if 0 in pictures else (1 << question.count) - 1
    trajectories = {one: runs[one].trajectory for one in question.sets}
    return Report(influence, question, pictures, attention, principal_paths(trajectories, origin),
                  neighbour_paths(trajectories), origin, made)


def as_data(told: Report) -> dict:
    """Plain JSON data: the sentences, and every number but those of maps and pictures."""
    influence, shares = told.influence, told.influence.shares
    data = {"loras": list(influence.names), "subsets": told.question.subsets, "sentences": told.sentences(),
            "made": told.made, "pictures": [told.title(one) for one in told.question.sets]}
    if shares is not None:
        data["shares"] = {"parts": _rounded(shares.parts), "errors": _rounded(shares.errors), "orders": shares.orders,
                          "phases": dict(zip(PHASES, _rounded(shares.phases))), "residual": shares.residual}
    for name, effects in effects_of(influence).items():
        data[name] = {"curves": _rounded(effects.curves), "bends": _rounded(effects.bends),
                      "mean_delta_e": _rounded(effects.heat.mean((1, 2)))}
    data["paths"] = {"explained": told.paths.told, "points": {told.title(one): _rounded(points)
                                                              for one, points in told.paths.points.items()}}
    return data


def effects_of(influence: Influence) -> dict[str, Effects]:
    """Those that there are, by their names."""
    found = {"alone": influence.alone, "left_out": influence.left_out}
    return {name: effects for name, effects in found.items() if effects is not None}


def heat_sheets(told: Report) -> dict[str, Image.Image]:
    """Heatmaps with a colour bar, by the kind of effects."""
    return {kind: heat_sheet([told.background(kind)] * len(effects.heat), effects.heat.numpy(), told.influence.names,
                             "delta E") for kind, effects in effects_of(told.influence).items()}


def _grown(attention: Tensor, size: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(attention[None, None].float(), size, mode="bilinear")[0, 0]


def _rounded(values: Tensor) -> list:
    return torch.round(values.double(), decimals=DIGITS).tolist()
