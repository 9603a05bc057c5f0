"""What steering costs on a UNet of SD 1.5's size: time beside a plain picture's, and peak memory.

Random weights, LoRAs of rank 32; the whole denoising loop of the standalone, default settings.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from sciart_ext.guidance.attention import AttentionMaps
from sciart_ext.guidance.guide import Guide
from sciart_ext.guidance.layout import Layout
from sciart_ext.guidance.masked import OwnTexts
from sciart_ext.guidance.words import Subject, find_words
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers
from sciart_ext.recipe import PassPlan, compile_plan, parse_recipe
from sciart_ext.recipe.guidance import GuidanceSettings
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.generate import workload
from sciart_ext.standalone.prompts.encoding import Embeddings
from sciart_ext.standalone.samplers.levels import Model, trained_alphas
from sciart_ext.standalone.samplers.making import Sampling, make_sampling
from sciart_ext.standalone.sampling import PromptRow, Rows, Time

from .mixing import memory
from .mixing.allocator import in_fresh_process
from .mixing.engine import TEXT_WIDTHS, WIDTHS, random_unet
from .random_weights import random_lora

SUBJECTS = ("rocket", "robot", "submarine")
CFG = 6.0


@dataclass(frozen=True)
class Variant:
    """So many LoRAs; guidance: the settings that differ from the defaults; compose: merge, masked, or contrastive."""

    name: str
    loras: int = 0
    guidance: dict | None = None
    compose: str = "merge"
    rows_apart: bool = False
    """each row in a call of its own, as the reference implementation does it"""


GUIDED = "contrastive"
TIMED = (Variant("plain"), Variant("merge", 2), Variant("guided_2", 2, {}, GUIDED), Variant("guided_3", 3, {}, GUIDED),
         Variant("masked_2", 2, {}, "masked"), Variant("masked_3", 3, {}, "masked"))
WITHOUT_UPDATES = Variant("guided_2_without_updates", 2, {"strength": 0.0}, GUIDED)
ALSO = (WITHOUT_UPDATES, Variant("guided_2_rows_apart", 2, {}, GUIDED, rows_apart=True))


class _RowsApart(Rows):
    def call(self, inputs: Tensor, time: Time, progress: float, rows: list[PromptRow]) -> Tensor:
        return torch.cat([super(_RowsApart, self).call(inputs, time, progress, [row]) for row in rows])


class CostBench:
    """`model`: sd15 or reduced; float16 on a GPU, float32 on a CPU."""

    def __init__(self, model: str, size: int, steps: int, device: str):
        self.device = torch.device(device)
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self.size, self.steps, self.model = size, steps, model
        unet = random_unet(WIDTHS[model], TEXT_WIDTHS[model], self.dtype, self.device)
        self.layers = diffusers_unet_layers(unet)
        self.pipe = SimpleNamespace(unet=unet, scheduler=SimpleNamespace(
            alphas_cumprod=trained_alphas().float(), config=SimpleNamespace(prediction_type="epsilon")))
        self.files = [random_lora(name, self.layers, seed) for seed, name in enumerate(SUBJECTS)]

    def run(self, variant: Variant, steps: int | None = None) -> float:
        """Seconds of the denoising of one picture."""
        with self._ready(variant, steps or self.steps) as (rows, noise, layout):
            self._synchronize()
            began = time.perf_counter()
            latents = denoise(self.sampling(steps or self.steps), rows, noise, None, layout)
            self._synchronize()
            taken = time.perf_counter() - began
        if not latents.isfinite().all():
            raise RuntimeError(f"{variant.name}: the latents are not finite; nothing was measured")
        return taken

    def sampling(self, steps: int) -> Sampling:
        return make_sampling("Euler", "Automatic", steps, Model(trained_alphas()))

    def gradient(self, early_end: bool) -> float:
        """Seconds of one gradient of the loss."""
        with self._ready(Variant("gradient", 2, {}, GUIDED), self.steps) as (rows, noise, guide):
            if not early_end:
                guide.maps.stopping = contextlib.nullcontext
            at = Time(999, torch.tensor(999, device=self.device))
            guide.look_ahead(noise, 999, rows.alphas, rows.denoised, rows.call_plain)
            self._synchronize()
            began = time.perf_counter()
            guide.gradient(noise, lambda inputs: rows.call(inputs, at, 0.0, [rows.plain]))
            self._synchronize()
            return time.perf_counter() - began

    def peak(self, variant: Variant) -> float | None:
        """Peak memory in MB of two steps: the allocator's on a GPU, else the process's; None where it is not known."""
        self.run(variant, 2)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif not memory.reset_peak():
            return None
        self.run(variant, 2)
        peak = torch.cuda.max_memory_allocated() / memory.MB if self.device.type == "cuda" else memory.peak_mb()
        return None if peak is None else round(peak, 1)

    @contextlib.contextmanager
    def _ready(self, variant: Variant, steps: int):
        """(rows, noise, layout or None) of a variant, its LoRAs on the UNet."""
        plan = self._plan(variant, steps)
        generator = torch.Generator().manual_seed(1)
        texts = {row: 1 if row.plain or not plan.masked else 1 + len(plan.masked) for row in plan.encoded_rows()}
        width = TEXT_WIDTHS[self.model]
        prompts = [PromptRow(row, Embeddings(torch.randn(1, 77 * count, width, generator=generator).to(
            self.device, self.dtype), None)) for row, count in texts.items()]
        mixer = Mixer(self.pipe.unet, self.layers, self.files[:variant.loras], masked=plan.masked)
        kind = _RowsApart if variant.rows_apart else Rows
        rows = kind(self.pipe, mixer, plan, prompts, CFG, (self.size, self.size))
        noise = torch.randn(1, 4, self.size // 8, self.size // 8, generator=generator).to(self.device)
        mixer.choose(workload(rows, 1, noise.shape))
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(rows.acting())
            yield rows, noise, self._layout(stack, rows, variant) if plan.subjects else None

    def _plan(self, variant: Variant, steps: int) -> PassPlan:
        subjects = {} if variant.guidance is None else {"compose": variant.compose, "guidance": variant.guidance}
        loras = [{"name": name, "weight": 0.7, **({"subject": name} if subjects else {})}
                 for name in SUBJECTS[:variant.loras]]
        return compile_plan(parse_recipe({"enabled": bool(loras), "loras": loras, **subjects}), steps).first

    def _layout(self, stack: ExitStack, rows: Rows, variant: Variant) -> Layout:
        settings = GuidanceSettings(**(variant.guidance or {}))
        names = SUBJECTS[:variant.loras]
        tokens = {name: [10 + i] for i, name in enumerate(names)} | {"": []}
        prompt = [[token for name in names for token in tokens[name]]]
        maps = stack.enter_context(AttentionMaps(self.pipe.unet, self.layers))
        subjects = [Subject(name) for name in names]
        kind = Guide if variant.compose == GUIDED else Layout
        layout = kind(settings, maps, subjects, [None] * len(names))
        layout.words = [find_words(subjects, tokens, prompt, prompt, names, names)]
        if kind is Layout:
            stack.enter_context(OwnTexts(rows.mixer, self.layers, [maps]))
        return layout

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure_time(model: str, size: int, steps: int, rounds: int, device: str) -> dict:
    """Each variant's times in rounds, and medians of its time over plain's in the same round."""
    bench = CostBench(model, size, steps, device)
    for variant in TIMED:
        bench.run(variant, 1)
    taken: list[dict[str, float]] = []
    for number in range(rounds):
        chosen = TIMED if number else (*TIMED, *ALSO)
        taken.append({variant.name: round(bench.run(variant), 3) for variant in chosen})
        taken[-1].update(gradient=round(bench.gradient(True), 3), gradient_without_early_end=round(
            bench.gradient(False), 3))
        print("cost round", number + 1, taken[-1], flush=True)
    ratios = {name: round(statistics.median(one[name] / one["plain"] for one in taken if name in one), 3)
              for name in taken[0] if name != "plain"}
    return {"model": model, "size": size, "steps": steps, "rounds": taken, "over_plain": ratios,
            "threads": torch.get_num_threads()}


def measure_memory(model: str, size: int, device: str) -> dict[str, float | None]:
    """Peak MB of each variant, in a process where nothing else has used memory, whose allocator gives back what is
    freed."""
    peaks = {}
    for variant in (*TIMED, WITHOUT_UPDATES):
        peaks[variant.name] = in_fresh_process(_peak, variant, model, size, device)
        print("peak", variant.name, peaks[variant.name], "MB", flush=True)
    return peaks


def _peak(variant: Variant, model: str, size: int, device: str) -> float | None:
    return CostBench(model, size, 2, device).peak(variant)
