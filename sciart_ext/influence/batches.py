"""Runs of many sets of LoRAs, as many at once as fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from ..guidance.noises import SharedNoise
from ..memory import in_parts_that_fit
from ..recipe.plan import SEEN_AHEAD
from .runs import Run

if TYPE_CHECKING:
    from ..recipe import Recipe


def in_batches(sets: Iterable[int], at_once: int, make: Callable[[Sequence[int]], Mapping[int, Run]],
               runs: MutableMapping[int, Run], acting: Callable[[int], int]) -> None:
    """Has the runs of sets made that `runs` does not have yet, so many at once, and puts them in; where a batch does
    not fit in memory, it and what follows is made by halves. What else `make` raises ends the work.

    acting(set): its LoRAs that do anything (`Plan.acting`); sets that differ in others have one run.
    """
    same = {one: acting(one) for one in sets}
    for made in in_parts_that_fit(missing_of(same, runs, acting), at_once, make):
        runs.update(made)
    runs.update({one: runs[acts] for one, acts in same.items()})


def sets_to_make(sets: Sequence[int], recipe: Recipe) -> list[int]:
    """These sets; and that of all LoRAs where it is not among them and one of several noises is to be chosen: what is
    explained begins with the noise of the picture with all of them."""
    every = (1 << len(recipe.loras)) - 1
    chooses = recipe.guidance.noises > 1 and recipe.compose in SEEN_AHEAD
    return [*sets, every] if chooses and every not in sets else list(sets)


def missing_of(sets: Iterable[int], runs: Mapping[int, Run], acting: Callable[[int], int]) -> list[int]:
    """The sets whose runs are to be made for these, largest numbers first: what the picture with all LoRAs chooses, the
    others share (`shared_noise`)."""
    return sorted({acting(one) for one in sets} - runs.keys(), reverse=True)


def shared_noise(runs: Mapping[int, Run]) -> SharedNoise:
    """The noise that the runs which are there begin with, for those that are still to be made."""
    return SharedNoise(next((run.noise for run in runs.values() if run.noise is not None), None))
