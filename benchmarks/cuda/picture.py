"""A picture's whole denoising loop on the benchmark's UNet, plain or with LoRAs kept to subjects: the standalone's own
loop."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from sciart_ext.guidance.attention import AttentionMaps
from sciart_ext.guidance.guide import Guide
from sciart_ext.guidance.layout import Layout
from sciart_ext.guidance.masked import OwnTexts
from sciart_ext.guidance.words import Subject, Words
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.recipe import PassPlan
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.samplers.levels import Model, trained_alphas
from sciart_ext.standalone.samplers.making import make_sampling
from sciart_ext.standalone.sampling import PromptRow, Rows

from .bench import END, Bench
from .stand_ins import GUIDANCE, MASKING, Entry, guidance

NAMES = ("rocket", "robot", "submarine")
CFG = 6.0


class Picture(NamedTuple):
    """So many subjects, each with its LoRA, 0 for a plain picture; steps; offload, until: the recipe's `guidance`;
    boxes: whether each subject has a region of its own, so that none is looked for; compose: the recipe's."""

    subjects: int
    steps: int
    offload: bool = False
    boxes: bool = False
    until: float = GUIDANCE["until"]
    compose: str = "contrastive"


def make(bench: Bench, picture: Picture) -> Tensor:
    """Its latents (1, 4, h, w)."""
    is_masked = picture.compose == "masked"
    mixer = bench.mixer("auto", bench.loras[:picture.subjects], range(picture.subjects) if is_masked else ())
    try:
        with torch.no_grad():
            rows = _rows(bench, picture, mixer)
            mixer.choose(bench.workload(picture.steps, rows=len(rows.cond) + len(rows.uncond), rows_differ=rows.differ))
            with ExitStack() as stack:
                stack.enter_context(mixer)
                maps = stack.enter_context(AttentionMaps(bench.unet, bench.layers))
                if is_masked:
                    stack.enter_context(OwnTexts(mixer, bench.layers, [maps]))
                sampling = make_sampling("Euler", "Automatic", picture.steps, Model(trained_alphas()))
                layout = _layout(picture, maps) if picture.subjects else None
                return denoise(sampling, rows, bench.noise.float(), None, layout)
    finally:
        mixer.release()


def _rows(bench: Bench, picture: Picture, mixer: Mixer) -> Rows:
    entries = tuple(Entry(name, END) for name in NAMES[:picture.subjects])
    negative = tuple(Entry(name, END * MASKING["negative"]) for name in NAMES[:picture.subjects])
    plan = PassPlan(entries, entries, (END,) * len(entries), picture.steps,
                    picture.compose if picture.subjects else "merge",
                    negative_weights=negative if picture.compose == "masked" else ())
    texts = bench.text[:1 + len(plan.masked)].flatten(0, 1)
    prompts = [PromptRow(row, SimpleNamespace(tokens=(texts if plan.masked and not row.plain else text)[None],
                                              pooled=None))
               for row, text in zip(plan.encoded_rows(), bench.text.repeat(2, 1, 1))]

    def unet(x: Tensor, time: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: None) -> SimpleNamespace:
        return SimpleNamespace(sample=bench.evaluate(x, time.expand(len(x)), encoder_hidden_states))

    scheduler = SimpleNamespace(alphas_cumprod=trained_alphas().float(),
                                config=SimpleNamespace(prediction_type="epsilon"))
    pipe = SimpleNamespace(unet=unet, scheduler=scheduler)
    return Rows(pipe, mixer, plan, prompts, CFG, (8 * bench.latent,) * 2)


def _layout(picture: Picture, maps: AttentionMaps) -> Layout:
    count = picture.subjects
    boxes = [(k / count, 0.0, (k + 1) / count, 1.0) if picture.boxes else None for k in range(count)]
    settings = guidance(offload=picture.offload, until=picture.until)
    subjects = [Subject(name) for name in NAMES[:count]]
    layout = Layout(settings, maps, subjects, boxes, MASKING["threshold"]) if picture.compose == "masked" else (
        Guide(settings, maps, subjects, boxes))
    columns = tuple((1 + k,) for k in range(count))  # each subject is one word, after the begin mark
    layout.words = [Words(columns, columns)]
    return layout
