"""The measurement without a WebUI: the mixer on diffusers' UNet, in this process."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers

from ..random_weights import filled, random_lora
from . import memory
from .allocator import in_fresh_process
from .variants import COUNTS, LIMIT_MB, NONE, Variant, memory_variants

WIDTHS = {"sd15": (320, 640, 1280, 1280), "reduced": (64, 128, 256, 256)}
TEXT_WIDTHS = {"sd15": 768, "reduced": 128}


@dataclass
class EngineBench:
    """`model`: sd15 or reduced; float16 on a GPU, float32 on a CPU; prompt and negative one in one batch."""

    model: str
    size: int
    steps: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self):
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.unet = random_unet(WIDTHS[self.model], TEXT_WIDTHS[self.model], self.dtype, self.device)
        self.layers = diffusers_unet_layers(self.unet)
        self.names = [f"bench-{i:02}" for i in range(max(COUNTS))]
        self.loras = tuple(self.names[:3])
        self.files: dict[str, LoraFile] = {}
        self.mixers: dict[tuple, Mixer] = {}
        side = self.size // 8
        self.latent = torch.randn(2, 4, side, side, device=self.device, dtype=self.dtype)
        self.text = torch.randn(2, 77, TEXT_WIDTHS[self.model], device=self.device, dtype=self.dtype)
        self.work = Workload(self.steps, self.steps, 2, side, side)
        self.differences: dict[str, float] = {}
        self.plain: torch.Tensor | None = None

    def timed(self, variant: Variant, steps: int | None = None) -> dict:
        """Seconds of one sampling run, after one unmeasured evaluation."""
        self.sample(variant, 1)
        last = None
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(self.device)
            start.record()
            last = self.sample(variant, steps or self.steps)
            end.record()
            torch.cuda.synchronize(self.device)
            taken = {"sampling": start.elapsed_time(end) / 1000}
        else:
            wall, cpu = time.perf_counter(), time.process_time()
            last = self.sample(variant, steps or self.steps)
            taken = {"sampling": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        self.compare_outputs(variant, last)
        return taken

    @torch.inference_mode()
    def sample(self, variant: Variant, steps: int) -> torch.Tensor:
        """The UNet's evaluations of a sampling run, without the sampler's own part; returns the last."""
        timestep = torch.full((2,), 500, device=self.device)
        if variant == NONE:
            for _ in range(steps):
                out = self.unet(self.latent, timestep, self.text).sample
            return out
        mixer = self.mixer(variant)
        start, end = variant.weights
        mixer.choose(Workload(steps, steps if variant.changing else 1, *_rest(self.work)))
        with mixer:
            for step in range(steps):
                weight = start + (end - start) * step / max(steps - 1, 1)
                mixer.set_gates([[weight] * len(variant.loras)])
                out = self.unet(self.latent, timestep, self.text).sample
        return out

    def compare_outputs(self, variant: Variant, last: torch.Tensor) -> None:
        """Holds that LoRAs acted: keeps each output's relative difference from the one without LoRAs."""
        if variant == NONE:
            self.plain = last
        elif self.plain is not None:
            difference = (last - self.plain).float().norm() / self.plain.float().norm()
            self.differences[variant.name] = round(float(difference), 4)
            if not math.isfinite(difference) or difference == 0:
                raise RuntimeError(f"{variant.name}: output differs by {difference}; nothing was measured")

    def mixer(self, variant: Variant) -> Mixer:
        """The LoRAs bound to the UNet; only the last used ones are kept."""
        key = (variant.loras, variant.execution, variant.memory_limit_mb)
        if key not in self.mixers:
            self.mixers.clear()
            limit = None if variant.memory_limit_mb is None else variant.memory_limit_mb * memory.MB
            files = [self.file(name) for name in variant.loras]
            self.mixers[key] = Mixer(
                self.unet, self.layers, files, execution=variant.execution, memory_limit=limit
            )
        return self.mixers[key]

    def file(self, name: str) -> LoraFile:
        if name not in self.files:
            self.files[name] = random_lora(name, self.layers, seed=self.names.index(name))
        return self.files[name]

    def peaks(self, steps: int = 2) -> dict:
        """Peak memory of each variant beside that of none: the allocator's on a GPU, else the process's."""
        loras = [self.file(name) for name in self.loras]
        peaks = {}
        for variant in memory_variants(self.loras, False, False):
            self.mixers.clear()
            self.sample(NONE, steps)
            plain = self._peak(NONE, steps)
            if plain is None:
                return {}
            self._peak(variant, steps)
            peaks[variant.name] = {"none": plain, "peak": self._peak(variant, steps)}
        work = Workload(steps, steps, *_rest(self.work))
        parts = memory.bounds_mb(loras, work, torch.finfo(self.dtype).bits // 8, LIMIT_MB)
        return {
            "variants": memory.compare(peaks, parts["bounds"]),
            **{name: round(parts[name], 1) for name in ("files", "touched", "activations")},
        }

    def _peak(self, variant: Variant, steps: int) -> float | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.sample(variant, steps)
            return round(torch.cuda.max_memory_allocated(self.device) / memory.MB, 1)
        if not memory.reset_peak():
            return None
        self.sample(variant, steps)
        peak = memory.peak_mb()
        return None if peak is None else round(peak, 1)


def peaks_in_fresh_process(*settings) -> dict:
    """`EngineBench(*settings).peaks()`, where nothing else has used memory before."""
    return in_fresh_process(_peaks, *settings)


def _peaks(*settings) -> dict:
    return EngineBench(*settings).peaks()


def random_unet(
    widths: tuple[int, ...], text_width: int, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """SD 1's UNet at these widths, filled so that what passes through keeps its size."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, block_out_channels=widths, cross_attention_dim=text_width)
    return filled(unet, dtype, device)


def _rest(work: Workload) -> tuple[int, int, int]:
    return work.rows, work.height, work.width
