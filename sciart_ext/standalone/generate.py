"""Pictures from a recipe, on a diffusers pipeline."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from .. import __version__
from ..compose.unread import unread
from ..compose.ways import fusion_of
from ..errors import SciArtError
from ..guidance.layout import Layout
from ..guidance.noises import SharedNoise, label
from ..guidance.sheet import subject_sheet
from ..lora.file import LoraFile, load_lora
from ..lora.folder import find_lora
from ..memory import unless_too_large
from ..mixer.cost import Workload
from ..mixer.mixture import Mixture, Part, all_layers, bind
from ..mixer.targets import Target, clip_layers, diffusers_unet_layers
from ..recipe import INFOTEXT_KEY, NOISE_KEY, NOTES_KEY, VERSION_KEY, PassPlan, Recipe, Row, recipe_to_text
from ..recipe.doubtful import in_plan, without_guidance
from .denoising import denoise
from .infotext import infotext
from .masked_rows import masked_rows
from .prompt_rows import encode_part, notes_on, of_one_length, texts_in_row
from .prompts.check import check_parts
from .prompts.chunks import words_in
from .prompts.embeddings import Words, usable_words
from .prompts.encoding import encoders
from .prompts.loras import strip_comments
from .prompts.plan import check_loaded, load_prompt_loras, notes_on_both, plan_with_prompt
from .samplers.levels import Model
from .samplers.making import Sampling, make_sampling
from .samplers.names import find, steps_run
from .samplers.noise import Noise, quiet_sampling
from .sampling import PromptRow, Rows, decode
from .subjects import enter_layout, enter_regions


@dataclass(frozen=True)
class Settings:
    """What the host calls txt2img settings. Width and height default to the model's own size."""

    prompt: str
    negative_prompt: str = ""
    steps: int = 20
    seed: int = 777
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = 7.0
    width: int | None = None
    height: int | None = None
    clip_skip: int = 1


@dataclass(frozen=True)
class Picture:
    """The result: `notes` is what the user should know, `seconds` the time of sampling and decoding of its whole batch,
    `subjects` the sheet of attention and masks that guidance.show asks for."""

    image: Image.Image
    infotext: str
    seconds: float
    notes: list[str] = field(default_factory=list)
    subjects: Image.Image | None = None


def load_loras(recipe: Recipe, folder: Path | None, prompt: str = "") -> list[LoraFile]:
    """The files of a resolved recipe's LoRAs, then of those that the prompt names. Raises `SciArtError`."""
    loras = recipe.loras if recipe.enabled else []
    return [*(load_lora(find_lora(lora.name, folder), lora.name) for lora in loras),
            *load_prompt_loras(prompt, folder)]


def generate(pipe, recipe: Recipe, settings: Settings, loras: list[LoraFile], model_name: str = "",
             on_step: Callable[[int, int], None] | None = None) -> Picture:
    """The picture of `settings.seed`. Arguments: `generate_batch`'s."""
    return generate_batch(pipe, recipe, settings, loras, [settings.seed], model_name, on_step)[0]


def generate_batch(pipe, recipe: Recipe, settings: Settings, loras: list[LoraFile], seeds: Sequence[int],
                   model_name: str = "", on_step: Callable[[int, int], None] | None = None) -> list[Picture]:
    """A picture for each seed, in place of `settings.seed`: as it would be alone, made in one batch. The pipeline is
    left as it was.

    recipe: resolved (`presets.resolve`); loras: as `load_loras` has them; model_name is for notes and infotext;
    on_step(done, steps) reports progress, and what it raises ends the work. Raises `SciArtError`.
    """
    if not seeds:
        raise SciArtError("seed", "no seeds; accepted: one or more")
    settings = [replace(settings, seed=seed) for seed in seeds]
    size, *_ = [check_settings(pipe, one) for one in settings]
    first = settings[0]
    sampling = sampling_of(pipe, first)
    plan = plan_with_prompt(recipe, first.prompt, sampling.steps)
    mixture = mixture_of(pipe, recipe, plan, loras, model_name or "the model")
    notes = [*mixture.notes, *embedded_words(pipe, mixture)[1], *unread(recipe), *in_plan(plan), *sampling.notes,
             *notes_on_both(recipe, first.prompt), *notes_on(first)]
    notes += without_guidance(recipe) if first.cfg_scale == 1 and not sampling.is_cfg_plus_plus else []
    started = time.perf_counter()
    rows = Rows(pipe, mixture.unet, plan, encode_rows(pipe, first, plan, mixture), first.cfg_scale, size,
                sampling.is_cfg_plus_plus)
    images, seen, noises = [], [], []
    at_once = 1 if sampling.is_adaptive else len(seeds)
    for begin in range(0, len(seeds), at_once):
        report = on_step and functools.partial(_report, on_step, begin // at_once, len(seeds) // at_once)
        latents, layout = sample(pipe, recipe, first, rows, sampling, seeds[begin:begin + at_once], report)
        images += decode(pipe, latents)
        seen += layout.shown() if layout else []
        noises += layout.noises or [] if layout else []
        notes += layout.notes() if layout and not begin else []
    notes += mixture.unet.notes
    labels = [plan.loras[k].label for k in plan.subjects]
    sheets = [subject_sheet(image, one, labels) for image, one in zip(images, seen)] or [None] * len(images)
    seconds = time.perf_counter() - started
    noise_labels = [label(number, recipe.guidance.noises) for number in noises] or [None] * len(images)
    return [Picture(image, _infotext(own, sampling, recipe, model_name, size, notes, noise), seconds, notes, sheet)
            for image, own, noise, sheet in zip(images, settings, noise_labels, sheets)]


def sampling_of(pipe, settings: Settings) -> Sampling:
    """The sampler that the settings ask for, on the pipeline's noise levels. Raises `SciArtError`."""
    return make_sampling(settings.sampler, settings.scheduler, settings.steps, Model.of(pipe))


def sample(pipe, recipe: Recipe, settings: Settings, rows: Rows, sampling: Sampling, seeds: Sequence[int],
           on_step: Callable[[int, int], None] | None = None, watch: Callable[[Tensor], None] | None = None,
           shared: SharedNoise | None = None) -> tuple[Tensor, Layout | None]:
    """Latents (images, c, h, w), one for each seed, and where their subjects are. on_step, watch: `denoise`'s; shared:
    where pictures are compared. Raises `SciArtError` where it does not fit in memory.
    """
    width, height = (side // pipe.vae_scale_factor for side in rows.size)
    noise = Noise(seeds, (pipe.unet.config.in_channels, height, width), pipe.device)
    unit = noise.next()
    with ExitStack() as stack:
        stack.enter_context(quiet_sampling())
        rows.mixer.choose(workload(rows, sampling.sampler.pattern.per_step, unit.shape))
        stack.enter_context(rows.acting())
        layout = enter_layout(stack, pipe, rows, settings, recipe, len(seeds))
        if layout is not None:
            layout.shared = shared
        enter_regions(stack, pipe, rows, recipe, unit.shape)
        sharing = layout or fusion_of(rows.plan, recipe.composition)
        make = functools.partial(denoise, sampling, rows, unit, noise, sharing, on_step, watch)
        return unless_too_large(make, functools.partial(rows.too_many, unit)), layout


def check_settings(pipe, settings: Settings) -> tuple[int, int]:
    """Width and height, once every setting is found acceptable."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    width, height = settings.width or side, settings.height or side
    limits = {"steps": (settings.steps, 1, 1000), "cfg": (settings.cfg_scale, 0, 100),
              "seed": (settings.seed, 0, 2**63 - 1), "clip-skip": (settings.clip_skip, 1, 12),
              "width": (width, 64, 8192), "height": (height, 64, 8192)}
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise SciArtError(name, f"{value} is out of range; accepted: {low} to {high}")
    for name, value in (("width", width), ("height", height)):
        if value % 8:
            raise SciArtError(name, f"{value} is not a multiple of 8")
    if not settings.prompt.strip():
        raise SciArtError("prompt", "empty")
    steps_run(find(settings.sampler, settings.scheduler)[0], settings.steps)
    layers = min(encoder.config.num_hidden_layers for _, encoder, _ in encoders(pipe))
    if settings.clip_skip > layers:
        raise SciArtError("clip-skip", f"{settings.clip_skip} is out of range; the text encoder has {layers} layers")
    return width, height


def model_parts(pipe) -> dict[str, Part]:
    """The pipeline's UNet and text encoders, as parts that LoRAs can reach."""
    parts = {"unet": Part(pipe.unet, diffusers_unet_layers(pipe.unet))}
    parts.update({prefix: Part(encoder, clip_layers(encoder, prefix)) for _, encoder, prefix in encoders(pipe)})
    return parts


def model_layers(pipe) -> dict[str, Target]:
    """Every layer of the pipeline that LoRAs can reach."""
    return all_layers(model_parts(pipe))


def mixture_of(pipe, recipe: Recipe, plan: PassPlan, loras: Sequence[LoraFile], model_name: str) -> Mixture:
    """The LoRAs of a recipe's plan on the pipeline's model; loras: as `load_loras` has them. Raises `SciArtError`."""
    check_loaded(plan, loras)
    return bind(model_parts(pipe), loras, plan.loras, model_name, recipe.execution, recipe.memory_limit,
                combination=recipe.combination, masked=plan.masked)


def encode_rows(pipe, settings: Settings, plan: PassPlan, mixture: Mixture) -> list[PromptRow]:
    """Each row's prompt, encoded with its own text-encoder gates; of those with the prompt all to one length. Where AND
    joins prompts, a row is there for each. Raises `SciArtError`."""
    words, _ = embedded_words(pipe, mixture)
    texts = {row: texts_in_row(plan, row, settings) for row in plan.encoded_rows()}
    check_parts(plan, max(len(parts) for parts in texts.values()))
    if plan.subjects and any(words_in(encoders(pipe)[0][0], text, words)
                             for parts in texts.values() for part in parts for _, text in part.texts):
        raise SciArtError("compose", f"{plan.compose} cannot place the word of an embedding that comes with a LoRA "
                                     "here; accepted: merge, or another prompt")

    def encoded(row: Row, gates: Row | None = None) -> list[PromptRow]:
        """The row's parts; gates: the row with whose LoRAs they are encoded, if another."""
        with mixture.encoding(plan.te_gates(gates or row)):
            parts = texts_in_row(plan, row, settings)
            return [encode_part(pipe, row, part, settings.clip_skip, words) for part in parts]

    if plan.masked:
        return masked_rows(pipe, plan, lambda row, gates: encoded(row, gates)[0], settings.clip_skip)
    return of_one_length(pipe, plan, [one for row in texts for one in encoded(row)], settings.clip_skip)


def embedded_words(pipe, mixture: Mixture) -> tuple[Words, list[str]]:
    """The words that come with the LoRAs, and notes on those that this model cannot take."""
    widths = {prefix: encoder.get_input_embeddings().weight.shape[1] for _, encoder, prefix in encoders(pipe)}
    return usable_words(mixture.embeddings, widths)


def workload(rows: Rows, order: int, latents: Sequence[int]) -> Workload:
    """What the UNet will be called with, for latents of this shape; samplers of order 2 evaluate twice a step."""
    images, _, height, width = latents
    return Workload(calls=rows.plan.steps * order - (order - 1), changes=rows.plan.changes(),
                    rows=images * (len(rows.cond) + len(rows.uncond)), height=height, width=width,
                    text_tokens=rows.cond[0].embeddings.tokens.shape[1], rows_differ=rows.differ)


def _report(on_step: Callable[[int, int], None], before: int, batches: int, done: int, steps: int) -> None:
    on_step(before * steps + done, batches * steps)


def _infotext(settings: Settings, sampling: Sampling, recipe: Recipe, model_name: str, size: tuple[int, int],
              notes: Sequence[str], noise: str | None) -> str:
    mixes = recipe.enabled and recipe.loras
    return infotext(strip_comments(settings.prompt), strip_comments(settings.negative_prompt), {
        "Steps": settings.steps, "Sampler": sampling.sampler.name,
        "Schedule type": sampling.schedule, "CFG scale": f"{settings.cfg_scale:g}", "Seed": settings.seed,
        "Size": f"{size[0]}x{size[1]}", "Model": model_name or None,
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None, "RNG": "CPU",
        INFOTEXT_KEY: recipe_to_text(recipe) if mixes else None, VERSION_KEY: __version__ if mixes else None,
        NOISE_KEY: noise, NOTES_KEY: "; ".join(notes) or None,
        "Version": f"SciArt {__version__} standalone"})
