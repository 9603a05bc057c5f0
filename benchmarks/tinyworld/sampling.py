"""Pictures of the tiny model by the hundred: one prompt, many seeds, LoRAs by recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciart_ext.compose.ways import fusion_of
from sciart_ext.guidance.guide import Guide
from sciart_ext.guidance.layout import Layout
from sciart_ext.guidance.sheet import Seen
from sciart_ext.lora.file import LoraFile, load_lora
from sciart_ext.mixer.mixture import bind
from sciart_ext.recipe import Recipe, compile_plan, parse_recipe
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.generate import Settings, encode_rows, model_parts, workload
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.samplers.levels import Model
from sciart_ext.standalone.samplers.making import Sampling, make_sampling
from sciart_ext.standalone.samplers.noise import Noise
from sciart_ext.standalone.sampling import Rows
from sciart_ext.standalone.subjects import enter_layout

COMPOSITIONS = ("merge", "switch", "composite")
STEPS, CFG = 20, 6.0


@dataclass(frozen=True)
class Guided:
    """What guidance did for one picture."""

    losses: tuple[float, ...]
    """before each update"""
    seen: Seen | None
    """where the recipe asks for it (`guidance.show`)"""
    noise: int = 0
    """the number of the noise that it began with"""
    apart: float = 0.0
    """how far apart its subjects were seen (`guidance.noises.least_distance`)"""


class Prepared(NamedTuple):
    """A prompt's rows on the model, and the sampler that they are called by."""

    settings: Settings
    sampling: Sampling
    rows: Rows


class Pictures:
    """The model and its LoRAs in memory. Every method gives pictures (seeds, 128, 128, 3) uint8, by DDIM."""

    def __init__(self, model: Path, device: str = "cpu", batch: int = 25, steps: int = STEPS):
        self.pipe = load_pipeline(model, device=device)
        self.batch, self.steps = batch, steps
        self.loras: dict[str, LoraFile] = {
            path.stem: load_lora(path) for path in sorted((model / "loras").glob("*.safetensors"))}

    def make(self, prompt: str, seeds: Sequence[int], weights: Mapping[str, float] | None = None,
             compose: str = "merge") -> np.ndarray:
        """LoRAs by name with constant weights, merged or composed (`COMPOSITIONS`)."""
        entries = [{"name": name.replace(" ", "-"), "weight": weight} for name, weight in (weights or {}).items()]
        recipe = parse_recipe({"enabled": bool(entries), "loras": entries, "compose": compose})
        return self.by_recipe(prompt, seeds, recipe)[0]

    @torch.no_grad()
    def by_recipe(self, prompt: str, seeds: Sequence[int], recipe: Recipe) -> tuple[np.ndarray, list[Guided]]:
        """SciArt's own way; and what guidance did for each seed."""
        settings, sampling, rows = self.prepared(prompt, recipe)
        made, guided = [], []
        for chosen in self.batches(seeds):
            noise, unit = self.noise(chosen)
            with ExitStack() as stack:
                rows.mixer.choose(workload(rows, 1, unit.shape))
                stack.enter_context(rows.acting())
                layout = enter_layout(stack, self.pipe, rows, settings, recipe, len(chosen))
                sharing = layout or fusion_of(rows.plan, recipe.composition)
                made.append(self.decoded(denoise(sampling, rows, unit, noise, sharing)))
            guided += _of_each(layout) if layout else []
        return np.concatenate(made), guided

    def prepared(self, prompt: str, recipe: Recipe, kind: type[Rows] = Rows,
                 masked: Collection[int] | None = None) -> Prepared:
        """What pictures of a prompt are made with. kind: of rows; masked: which LoRAs have masks, if not the plan's."""
        sampling = make_sampling("DDIM", "Automatic", self.steps, Model.of(self.pipe))
        plan = compile_plan(recipe, sampling.steps).first
        mixture = bind(model_parts(self.pipe), [self.loras[lora.name] for lora in recipe.loras], recipe.loras, "tiny",
                       "branch" if recipe.combination is None else "auto", combination=recipe.combination,
                       masked=plan.masked if masked is None else masked)
        settings = Settings(prompt, steps=self.steps, cfg_scale=CFG)
        rows = kind(self.pipe, mixture.unet, plan, encode_rows(self.pipe, settings, plan, mixture), CFG, (128, 128))
        return Prepared(settings, sampling, rows)

    def batches(self, seeds: Sequence[int]) -> Iterator[Sequence[int]]:
        """The seeds, as many at once as the memory is for."""
        for start in range(0, len(seeds), self.batch):
            yield seeds[start:start + self.batch]

    def noise(self, seeds: Sequence[int]) -> tuple[Noise, Tensor]:
        """What the pictures of these seeds have noise from, and what they begin with (seeds, c, h, w)."""
        side = self.pipe.unet.config.sample_size
        noise = Noise([int(seed) for seed in seeds], (4, side, side), self.pipe.device)
        return noise, noise.next()

    def decoded(self, latents: Tensor) -> np.ndarray:
        vae = self.pipe.vae
        decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _of_each(layout: Layout) -> Iterator[Guided]:
    images = len(layout.words)
    losses = list(zip(*layout.losses)) if isinstance(layout, Guide) else []
    return map(Guided, losses or [()] * images, layout.shown() or [None] * images, layout.noises or [0] * images,
               layout.apart.tolist())
