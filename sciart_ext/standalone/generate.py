"""One picture from a recipe, on a diffusers pipeline."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from .. import __version__
from ..errors import SciArtError, did_you_mean
from ..lora.file import LoraFile, load_lora
from ..mixer.cost import Workload
from ..mixer.mixer import Mixer
from ..mixer.mixture import Mixture, Part, all_layers, bind
from ..mixer.targets import Target, clip_layers, diffusers_unet_layers
from ..plan import PassPlan, compile_plan
from ..recipe import Recipe, recipe_to_text
from .infotext import infotext
from .prompts import Embeddings, count_chunks, emphasis_note, encode, encoders
from .samplers import make_scheduler, sampler_step

LORA_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin", ".pth")


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
    """The result: `notes` is what the user should know, `seconds` the time of sampling and decoding."""

    image: Image.Image
    infotext: str
    seconds: float
    notes: list[str] = field(default_factory=list)


def find_lora(name: str, folder: Path | None) -> Path:
    """The file of a LoRA, which is named by a path or by its stem in (subfolders of) the LoRA folder."""
    path = Path(name)
    if path.suffix.lower() in LORA_SUFFIXES and path.is_file():
        return path
    if folder is not None and not Path(folder).is_dir():
        raise SciArtError("lora-dir", f"{folder}: no such folder")
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in LORA_SUFFIXES) if folder else []
    found = [p for p in files if name in (p.stem, p.name, p.relative_to(folder).with_suffix("").as_posix())]
    if len(found) > 1:
        raise SciArtError("loras", f"{name!r} is ambiguous: {', '.join(map(str, found))}")
    if not found:
        raise SciArtError("loras", f"no LoRA {name!r}; {did_you_mean(name, [p.stem for p in files])}")
    return found[0]


def load_loras(recipe: Recipe, folder: Path | None) -> list[LoraFile]:
    """The files of a resolved recipe's LoRAs."""
    loras = recipe.loras if recipe.enabled else []
    return [load_lora(find_lora(lora.name, folder), lora.name) for lora in loras]


def generate(pipe, recipe: Recipe, settings: Settings, loras: list[LoraFile], model_name: str = "",
             on_step: Callable[[int, int], None] | None = None) -> Picture:
    """A picture. The pipeline is left as it was.

    recipe: resolved (`presets.resolve`); loras: its files in the same order; model_name is for notes and
    infotext; on_step(done, steps) reports progress.
    """
    width, height = check_settings(pipe, settings)
    entries = recipe.loras if recipe.enabled else []
    plan = compile_plan(recipe.copy(update={"loras": entries}), settings.steps).first
    mixture = bind(model_parts(pipe), loras, entries, model_name or "the model", recipe.execution,
                   recipe.memory_limit)
    notes = list(mixture.notes)
    notes += filter(None, [emphasis_note(f"{settings.prompt} {settings.negative_prompt}")])
    scheduler = make_scheduler(settings.sampler, settings.scheduler, pipe.scheduler.config, settings.seed)
    started = time.perf_counter()
    cond, uncond = encode_prompts(pipe, settings, plan, mixture)
    with ExitStack() as stack:
        stack.callback(setattr, pipe, "scheduler", pipe.scheduler)
        pipe.scheduler = scheduler
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Should have ta>=t0")  # torchsde, about rounding
        work = workload(pipe, plan, settings.cfg_scale, (width, height), cond.tokens.shape[1])
        set_step = _unet_gates(stack, mixture.unet, plan, work)

        def after_evaluation(_pipe, evaluation: int, _timestep, kwargs: dict) -> dict:
            step = sampler_step(evaluation + 1, scheduler.order)
            if on_step is not None and sampler_step(evaluation, scheduler.order) < step < settings.steps:
                on_step(step, settings.steps)
            set_step(min(step, settings.steps - 1))
            return kwargs

        set_step(0)
        pooled = {} if cond.pooled is None else {
            "pooled_prompt_embeds": cond.pooled, "negative_pooled_prompt_embeds": uncond.pooled}
        image = pipe(
            prompt_embeds=cond.tokens, negative_prompt_embeds=uncond.tokens, **pooled,
            num_inference_steps=settings.steps, guidance_scale=settings.cfg_scale, width=width, height=height,
            generator=torch.Generator("cpu").manual_seed(settings.seed), callback_on_step_end=after_evaluation,
            callback_on_step_end_tensor_inputs=["latents"]).images[0]
    if on_step is not None:
        on_step(settings.steps, settings.steps)
    text = _infotext(settings, recipe, model_name, (width, height))
    return Picture(image, text, time.perf_counter() - started, notes)


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


def encode_prompts(pipe, settings: Settings, plan: PassPlan, mixture: Mixture) -> tuple[Embeddings, Embeddings]:
    """Prompt and negative prompt, each encoded with its own text-encoder gates, to the same length."""
    chunks = max(count_chunks(pipe, text) for text in (settings.prompt, settings.negative_prompt))
    results = []
    for uncond, text in ((False, settings.prompt), (True, settings.negative_prompt)):
        with mixture.encoding(plan.te_gates(uncond=uncond)):
            results.append(encode(pipe, text, chunks, settings.clip_skip))
    return results[0], results[1]


def workload(pipe, plan: PassPlan, cfg_scale: float, size: tuple[int, int], text_tokens: int) -> Workload:
    """What the UNet will be called with: rows are doubled where CFG guides (a scale above 1)."""
    guided, order = cfg_scale > 1, pipe.scheduler.order
    return Workload(calls=plan.steps * order - (order - 1), changes=plan.changes(), rows=2 if guided else 1,
                    height=size[1] // pipe.vae_scale_factor, width=size[0] // pipe.vae_scale_factor,
                    text_tokens=text_tokens, rows_differ=guided and plan.rows_differ)


def _unet_gates(stack: ExitStack, mixer: Mixer, plan: PassPlan, work: Workload) -> Callable[[int], None]:
    """Mixes the LoRAs into the UNet until `stack` closes. Returns what sets the gates of a step."""
    mixer.choose(work)
    stack.enter_context(mixer)
    progress = plan.progress()

    def set_step(step: int) -> None:
        cond = plan.gates(progress[step])
        # diffusers' batch for classifier-free guidance has the negative prompt's row first
        mixer.set_gates([plan.gates(progress[step], uncond=True), cond] if work.rows_differ else [cond])

    return set_step


def _infotext(settings: Settings, recipe: Recipe, model_name: str, size: tuple[int, int]) -> str:
    return infotext(settings.prompt, settings.negative_prompt, {
        "Steps": settings.steps, "Sampler": settings.sampler,
        "Schedule type": settings.scheduler, "CFG scale": f"{settings.cfg_scale:g}", "Seed": settings.seed,
        "Size": f"{size[0]}x{size[1]}", "Model": model_name or None,
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None, "RNG": "CPU",
        "SciArt": recipe_to_text(recipe) if recipe.enabled and recipe.loras else None,
        "Version": f"SciArt {__version__} standalone"})
