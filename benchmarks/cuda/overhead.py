"""The time that Python adds to a call whose arithmetic costs nothing: SD 1.5's topology at toy width, on one thread.

On a GPU the host must hand over kernels as fast as they run: what a call's hooks and decisions take there is what they
take here, where the arithmetic is next to nothing. Time is the thread's own where the system tells it finely enough:
what other work takes of the processor is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from ..random_weights import filled, random_lora
from .bench import LORAS, PLAIN, Bench, Variant
from .unet import SD15, UNet

TOPOLOGY, LATENT, RANK = replace(SD15.narrowed(32, 32), multipliers=(1, 1, 1, 1)), 8, 1
WAYS = {"constant": Variant("constant", "merge"), "changing": Variant("changing", "merge", True),
        "branch": Variant("branch", "branch", True)}
ROUNDS, QUICK_ROUNDS = 30, 6
WARM_UP = 3
FINE = 1e-5
"""seconds between ticks of a clock that tells such times apart; Windows' clock of a thread has 0.016"""


def measure(quick: bool) -> dict[str, float]:
    """Milliseconds: of `plain` a call's, of the others medians of what they take longer than the plain call beside
    them."""
    rounds = WARM_UP + (QUICK_ROUNDS if quick else ROUNDS)
    fine = time.get_clock_info("thread_time").resolution <= FINE
    clock = time.thread_time if fine else time.perf_counter
    with _one_thread(), torch.no_grad(), ExitStack() as stack:
        taken: dict[str, list[float]] = {name: [] for name in ("plain", *WAYS)}
        # a model each, so that no way's hooks are in another's calls
        calls = {name: stack.enter_context(_bench().acting(WAYS.get(name, PLAIN), rounds)) for name in taken}
        for number in range(rounds):
            for name, call in calls.items():
                began = clock()
                call(number)
                taken[name].append(1000 * (clock() - began))
    plain = taken.pop("plain")[WARM_UP:]
    over = {name: statistics.median(own - one for own, one in zip(times[WARM_UP:], plain))
            for name, times in taken.items()}
    return {**{name: round(value, 2) for name, value in over.items()}, "plain": round(statistics.median(plain), 2)}


def _bench() -> Bench:
    with torch.device("meta"):
        unet = UNet(TOPOLOGY)
    bench = Bench(filled(unet, torch.float32, torch.device("cpu")), [], LATENT)
    bench.loras = [random_lora(str(k), bench.layers, k, rank=RANK, dtype=torch.float32) for k in range(LORAS)]
    return bench


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
