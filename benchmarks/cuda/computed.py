"""The memory that a picture takes on a GPU, computed without one: the most that lives there at once.

Every tensor's bytes are followed on a hollow GPU, whose tensors have shapes alone, at the model's full size and in half
precision. Attention is taken as what keeps no matrix of pixels × pixels (sdp, xformers: what the WebUI uses).

Not counted: CUDA's own context, workspaces of its libraries, what an allocator rounds and holds in reserve, and other
programs. `ROOM` is left for these where it is said whether a card is enough.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.pretended_gpu.hollow import HollowGpu

from .bench import VARIANTS, Bench, Scene, Variant
from .counted import hollow_bench
from .picture import Picture, make

GIB = 2**30
CARDS = {"sd15": 8, "sdxl": 12}
"""GiB of the GPU on which each model is looked at"""
ROOM = 1.0
"""GiB"""
RANK = 128
BESIDE = {"sd15": 2 * (123_060_480 + 83_653_863), "sdxl": 2 * (123_060_480 + 694_659_840 + 83_653_863)}
"""Bytes of text encoders and VAE in half precision: they lie beside the UNet, but with the WebUI's --medvram, which has
one part of the model on the GPU at a time."""
STEPS = 2
"""after which the peak is that of a whole picture: all later steps do the same"""


def compute(name: str, scene: Scene, report: Callable[[str, object], None]) -> None:
    """Reports, of a scene with three LoRAs, GiB: `unet`, `beside` (text encoders and VAE), `files` (LoRAs' factors),
    `plain` (the peak of a picture without them, all included), and of each variant the peak, what it is over the plain
    one, what of it stays afterwards, and whether the card is enough, also with --medvram."""
    card = CARDS[name]
    with HollowGpu(total_memory=card * GIB, limit=2**50) as gpu, torch.no_grad():
        bench = hollow_bench(scene, RANK)
        unet = sum(weight.numel() * weight.element_size() for weight in bench.unet.parameters())
        report("unet", _gib(unet))
        report("beside", _gib(BESIDE[name]))
        report("files", _gib(sum(file.nbytes for file in bench.loras)))
        runs = {variant.name: _stepping(bench, variant) for variant in VARIANTS if variant.changing}
        for label, offload in (("guided_2", False), ("guided_2_offload", True)):
            runs[label] = lambda offload=offload: make(bench, Picture(
                2, STEPS, offload, boxes=True, until=1.0))
        runs["masked_2"] = lambda: make(bench, Picture(2, STEPS, boxes=True, compose="masked"))
        plain = _peak(gpu, bench.call)[0] + BESIDE[name]
        report("plain", {"peak": _gib(plain), **_verdict(plain, name)})
        for label, run in runs.items():
            peak, stays = _peak(gpu, run)
            peak += BESIDE[name]
            report(label, {"peak": _gib(peak), "over_plain": _gib(peak - plain), "stays": _gib(stays),
                           **_verdict(peak, name)})


def _stepping(bench: Bench, variant: Variant) -> Callable[[], None]:
    def run() -> None:
        with bench.acting(variant, STEPS) as step:
            for number in range(STEPS):
                step(number)
    return run


def _peak(gpu: HollowGpu, run: Callable[[], object]) -> tuple[int, int]:
    """(the most bytes that live while it runs, what of them it leaves)."""
    before = gpu.memory.live
    gpu.memory.peak = before
    run()
    return gpu.memory.peak, gpu.memory.live - before


def _verdict(peak: int, name: str) -> dict[str, bool]:
    most = (CARDS[name] - ROOM) * GIB
    return {"fits": peak <= most, "fits_medvram": peak - BESIDE[name] <= most}


def _gib(size: float) -> float:
    return round(size / GIB, 2)
