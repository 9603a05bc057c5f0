"""A picture's whole denoising loop on the benchmark's UNet, plain or steered to subjects: the standalone's own loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from sciart_ext.guidance.attention import AttentionMaps
from sciart_ext.guidance.guide import Guide
from sciart_ext.guidance.words import Subject, Words
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.recipe import PassPlan
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.sampling import PromptRow, Rows

from .bench import END, Bench
from .stand_ins import GUIDANCE, Entry, guidance

NAMES = ("rocket", "robot", "submarine")
CFG = 6.0
TRAINED_TIMES = 1000


class Picture(NamedTuple):
    """So many subjects, each with its LoRA, 0 for a plain picture; steps; offload, until: the recipe's `guidance`;
    boxes: whether each subject has a region of its own, so that none is looked for."""

    subjects: int
    steps: int
    offload: bool = False
    boxes: bool = False
    until: float = GUIDANCE["until"]


class Ddim:
    """DDIM without noise (arXiv 2010.02502, equation 12, η = 0) on Stable Diffusion's noise schedule, with what
    `denoise` needs of diffusers' schedulers."""

    order, init_noise_sigma = 1, 1.0

    def __init__(self):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED_TIMES, dtype=torch.float64) ** 2
        self.alphas_cumprod = (1 - betas).cumprod(0).float()
        self.config = SimpleNamespace(prediction_type="epsilon")
        self.timesteps = torch.empty(0)

    def set_timesteps(self, steps: int) -> None:
        self.timesteps = TRAINED_TIMES - 1 - torch.arange(steps) * (TRAINED_TIMES // steps)

    def scale_model_input(self, latents: Tensor, time: Tensor) -> Tensor:
        return latents

    def step(self, noise: Tensor, time: Tensor, latents: Tensor) -> SimpleNamespace:
        now = int(time)
        before = now - TRAINED_TIMES // len(self.timesteps)
        alpha, following = (float(self.alphas_cumprod[max(one, 0)]) for one in (now, before))
        clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        return SimpleNamespace(prev_sample=following**0.5 * clean + (1 - following) ** 0.5 * noise)


def make(bench: Bench, picture: Picture) -> Tensor:
    """Its latents (1, 4, h, w)."""
    mixer = bench.mixer("auto", bench.loras[:picture.subjects])
    try:
        with torch.no_grad():
            rows = _rows(bench, picture, mixer)
            mixer.choose(bench.workload(picture.steps, rows=len(rows.cond) + len(rows.uncond), rows_differ=rows.differ))
            with mixer, AttentionMaps(bench.unet, bench.layers) as maps:
                return denoise(Ddim(), rows, bench.noise, [], _guide(picture, maps) if picture.subjects else None)
    finally:
        mixer.release()


def _rows(bench: Bench, picture: Picture, mixer: Mixer) -> Rows:
    entries = tuple(Entry(name, END) for name in NAMES[:picture.subjects])
    plan = PassPlan(entries, entries, (END,) * len(entries), picture.steps,
                    "contrastive" if picture.subjects else "merge")
    prompts = [PromptRow(row, SimpleNamespace(tokens=text[None], pooled=None))
               for row, text in zip(plan.encoded_rows(), bench.text.repeat(2, 1, 1))]

    def unet(x: Tensor, time: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: None) -> SimpleNamespace:
        return SimpleNamespace(sample=bench.evaluate(x, time.expand(len(x)), encoder_hidden_states))

    pipe = SimpleNamespace(unet=unet, scheduler=Ddim())
    return Rows(pipe, mixer, plan, prompts, CFG, (8 * bench.latent,) * 2)


def _guide(picture: Picture, maps: AttentionMaps) -> Guide:
    count = picture.subjects
    boxes = [(k / count, 0.0, (k + 1) / count, 1.0) if picture.boxes else None for k in range(count)]
    settings = guidance(offload=picture.offload, until=picture.until)
    guide = Guide(settings, maps, [Subject(name) for name in NAMES[:count]], boxes)
    columns = tuple((1 + k,) for k in range(count))  # each subject is one word, after the begin mark
    guide.words = [Words(columns, columns)]
    return guide
