"""Paired timings and peaks on a card: every variant in every round, each beside the plain call of its round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from sciart_ext.memory import is_out_of_memory, let_go

from ..random_weights import filled, random_lora
from .bench import LORAS, VARIANTS, Bench, Scene, Variant
from .card import Card
from .picture import Picture, make
from .unet import UNet

MIB = 2**20
NO_ROOM = "out of memory"
PEAK_STEPS = 3
SET_STEPS = 2
PICTURES = {"plain": (0, "merge"), "guided_2": (2, "contrastive"), "guided_3": (3, "contrastive"),
            "masked_2": (2, "masked"), "masked_3": (3, "masked")}
"""the subjects of each, and how they are kept apart"""


class Extent(NamedTuple):
    """How much is measured: steps of a variant, of a steered picture; rounds at most."""

    steps: int
    picture_steps: int
    rounds: int


FULL, QUICK = Extent(10, 10, 7), Extent(3, 2, 2)


class Measuring:
    """What is measured on a card until a moment of the monotonic clock: one round at least, more where they fit.

    say: takes a line of text for people.
    """

    def __init__(self, card: Card, extent: Extent, say: Callable[[str], None]):
        self.card, self.extent, self.say = card, extent, say

    def variants(self, bench: Bench, until: float) -> dict:
        """Of each variant medians: `ratio`, a step's time over the plain step's of its round; `step_ms`; `first_ms`,
        from binding the LoRAs to the end of a picture's first step and to their release."""
        self._differ(bench)
        return self._rounds({variant.name: lambda variant=variant: self._timed(bench, variant)
                             for variant in VARIANTS}, until)

    def pictures(self, bench: Bench, until: float) -> dict:
        """The same of whole denoising loops, plain and steered, by their steps."""
        steps = self.extent.picture_steps
        return self._rounds({name: lambda count=count, compose=compose: self._loop(
            bench, Picture(count, steps, compose=compose)) for name, (count, compose) in PICTURES.items()}, until)

    def sets(self, bench: Bench, until: float) -> dict:
        """The same of all sets of the LoRAs, one by one and at once: `ratio` is that to one by one; and the largest
        difference between both."""
        apart = bench.sets(1, False)
        difference = float((bench.sets(1, True) - apart).abs().max() / apart.abs().max())
        found = self._rounds({name: lambda at_once=at_once: {"step": self.card.seconds(
            lambda: bench.sets(SET_STEPS, at_once)) / SET_STEPS}
            for name, at_once in (("one_by_one", False), ("at_once", True))}, until)
        return {**found, "difference": difference}

    def peaks(self, bench: Bench) -> dict:
        """MiB that each adds to the plain call's peak, and that peak."""
        runs = {variant.name: lambda variant=variant: self._steps(bench, variant, PEAK_STEPS)
                for variant in VARIANTS if variant.changing}
        for name, offload in (("guided_2", False), ("guided_2_offload", True)):
            runs[name] = lambda offload=offload: make(bench, Picture(2, PEAK_STEPS, offload))
        plain = self.card.peak(bench.call)
        found: dict[str, float | str] = {"plain": round(plain / MIB, 1)}
        for name, run in runs.items():
            run_once, peak = self._tried(run), self._tried(lambda run=run: self.card.peak(run))
            found[name] = NO_ROOM if NO_ROOM in (run_once, peak) else round((peak - plain) / MIB, 1)
            self.say(f"    peak over plain, {name}: {found[name]} MiB")
        return found

    def _timed(self, bench: Bench, variant: Variant) -> dict[str, float]:
        steps = self.extent.steps
        with bench.acting(variant, steps + 1) as step:
            step(0)
            each = self.card.seconds(lambda: [step(1 + number) for number in range(steps)]) / steps
        return {"step": each, "first": self.card.host_seconds(lambda: self._steps(bench, variant, 1))}

    def _loop(self, bench: Bench, picture: Picture) -> dict[str, float]:
        return {"step": self.card.seconds(lambda: make(bench, picture)) / picture.steps}

    def _steps(self, bench: Bench, variant: Variant, steps: int) -> torch.Tensor:
        with bench.acting(variant, steps) as step:
            return [step(number) for number in range(steps)][-1]

    def _differ(self, bench: Bench) -> None:
        """Holds that the LoRAs act, and alike in all ways: else nothing is measured."""
        plain = self._steps(bench, VARIANTS[0], 1)
        merged = None
        for variant in VARIANTS[1:]:
            made = self._tried(lambda variant=variant: self._steps(bench, variant, 2))
            if isinstance(made, str):
                continue
            difference = float((made - plain).abs().max() / plain.abs().max())
            if not 0.001 < difference < 1000:
                raise RuntimeError(f"{variant.name}: the output differs by {difference}; nothing was measured")
            if not variant.rows_differ:
                merged = made if merged is None else merged
                apart = float((made - merged).abs().max() / merged.abs().max())
                if not apart < 0.1:
                    raise RuntimeError(f"{variant.name}: the output differs by {apart} from another execution's")

    def _rounds(self, runs: dict[str, Callable[[], dict]], until: float) -> dict:
        rounds: list[dict[str, dict]] = []
        longest, names = 0.0, list(runs)
        for run in runs.values():  # a run that warms up
            self._tried(run)
        while len(rounds) < self.extent.rounds and (not rounds or time.monotonic() + longest < until):
            began = time.monotonic()
            found = {name: self._tried(runs[name]) for name in names}
            rounds.append({name: one for name, one in found.items() if not isinstance(one, str)})
            longest = max(longest, time.monotonic() - began)
        result: dict = {"rounds": len(rounds)}
        for name in names:
            taken = [(one[name], one[names[0]]) for one in rounds if name in one and names[0] in one]
            if not taken:
                result[name] = NO_ROOM
            else:
                result[name] = {
                    "ratio": round(statistics.median(own["step"] / plain["step"] for own, plain in taken), 3),
                    **{f"{part}_ms": round(1000 * statistics.median(own[part] for own, _ in taken), 2)
                       for part in taken[0][0]}}
            self.say(f"    {name}: {result[name]}")
        result["raw"] = rounds
        return result

    def _tried(self, run: Callable[[], object]) -> object:
        """What it returns, or `NO_ROOM`."""
        try:
            return run()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            let_go(error)
        return NO_ROOM


def card_bench(scene: Scene, rank: int, device: torch.device, dtype: torch.dtype = torch.float16) -> Bench:
    """A scene's model with random weights, and LoRAs of a rank in files of half precision."""
    with torch.device("meta"):
        unet = UNet(scene.topology)
    bench = Bench(filled(unet, dtype, device), [], scene.latent)
    bench.loras = [random_lora(str(k), bench.layers, k, rank=rank, drawn_on=device) for k in range(LORAS)]
    return bench
