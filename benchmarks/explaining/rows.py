"""Counterfactual runs in one batch beside runs one by one, on a UNet of SD 1.5's size: time, memory, difference.

Random weights, three LoRAs of rank 32, all eight sets of them; the standalone's denoising loop. One by one the weights
are merged; in a batch rows differ, so that every layer branches.
"""

from __future__ import annotations

import statistics
import time
from types import SimpleNamespace

import torch
from torch import Tensor

from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers
from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.standalone.counterfactuals import SetRows
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.generate import workload
from sciart_ext.standalone.prompts.encoding import Embeddings
from sciart_ext.standalone.samplers.levels import Model, trained_alphas
from sciart_ext.standalone.samplers.making import make_sampling
from sciart_ext.standalone.samplers.noise import Noise, quiet_sampling
from sciart_ext.standalone.sampling import PromptRow

from ..mixing import memory
from ..mixing.allocator import in_fresh_process
from ..mixing.engine import TEXT_WIDTHS, WIDTHS, random_unet
from ..random_weights import random_lora

NAMES = ("one", "two", "three")
CFG = 6.0
DIFFERENCE_STEPS = 3
SAMPLERS = ("Euler", "Euler a", "DPM++ 2M SDE")


class RowsBench:
    """`model`: sd15 or reduced; float16 on a GPU, float32 on a CPU."""

    def __init__(self, model: str, size: int, steps: int, device: str):
        self.device, self.size, self.steps = torch.device(device), size, steps
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        unet = random_unet(WIDTHS[model], TEXT_WIDTHS[model], self.dtype, self.device)
        layers = diffusers_unet_layers(unet)
        scheduler = SimpleNamespace(alphas_cumprod=None, config=SimpleNamespace(prediction_type="epsilon"))
        self.pipe = SimpleNamespace(unet=unet, scheduler=scheduler)
        self.mixer = Mixer(unet, layers, [random_lora(name, layers, seed) for seed, name in enumerate(NAMES)])
        recipe = parse_recipe({"loras": [{"name": name, "weight": 0.7} for name in NAMES]})
        self.plan = compile_plan(recipe, steps).first
        generator = torch.Generator().manual_seed(1)
        self.prompts = [PromptRow(row, Embeddings(torch.randn(1, 77, TEXT_WIDTHS[model], generator=generator).to(
            self.device, self.dtype), None)) for row in self.plan.encoded_rows()]

    def run(self, at_once: int, sampler: str = "Euler", sets: int = 8) -> tuple[float, Tensor]:
        """Seconds of all sets, so many at once, and their latents."""
        began, made = time.perf_counter(), []
        for start in range(0, sets, at_once):
            made.append(self._batch(range(start, start + at_once), sampler))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        latents = torch.cat(made)
        if not latents.isfinite().all():
            raise RuntimeError("the latents are not finite; nothing was measured")
        return time.perf_counter() - began, latents

    @torch.no_grad()
    def _batch(self, sets: range, sampler: str) -> Tensor:
        plans = [self.plan.with_only(one) for one in sets]
        rows = SetRows(self.pipe, self.mixer, plans, self.prompts, CFG, (self.size, self.size))
        sampling = make_sampling(sampler, "Automatic", self.plan.steps, Model(trained_alphas()))
        noise = Noise([1] * len(sets), (4, self.size // 8, self.size // 8), self.device)
        unit = noise.next()
        with quiet_sampling():
            self.mixer.choose(workload(rows, sampling.sampler.pattern.per_step, unit.shape))
            with rows.acting():
                return denoise(sampling, rows, unit, noise)


def measure(model: str, size: int, steps: int, rounds: int, device: str) -> dict:
    """Medians over rounds of the ratio of the batch's time to that of single runs; the largest difference of latents,
    as a part of their largest value, for each sampler; peak memory of both."""
    bench, short = (RowsBench(model, size, count, device) for count in (steps, DIFFERENCE_STEPS))
    differences = {}
    for sampler in SAMPLERS:
        (_, batch), (_, single) = short.run(8, sampler), short.run(1, sampler)
        differences[sampler] = float((batch - single).abs().max() / single.abs().max())
        print(sampler, "largest difference", differences[sampler], flush=True)
    taken = []
    for number in range(rounds):
        taken.append({f"{at_once}_at_once": round(bench.run(at_once)[0], 3) for at_once in (8, 1)})
        print("rows, round", number + 1, taken[-1], flush=True)
    ratios = {name: round(statistics.median(one[name] / one["1_at_once"] for one in taken), 3) for name in taken[0]}
    peaks = {f"{at_once}_at_once": in_fresh_process(_peak, model, size, device, at_once) for at_once in (8, 1)}
    return {"model": model, "size": size, "steps": steps, "rounds": taken, "over_separate": ratios,
            "difference": differences, "peak_mb": peaks, "threads": torch.get_num_threads()}


def _peak(model: str, size: int, device: str, at_once: int) -> float | None:
    bench = RowsBench(model, size, 2, device)
    bench.run(at_once)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif not memory.reset_peak():
        return None
    bench.run(at_once)
    return round(torch.cuda.max_memory_allocated() / memory.MB if device == "cuda" else memory.peak_mb(), 1)
