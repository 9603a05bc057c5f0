"""Switch and composite beside their reference: the same pictures, and what they take.

On the tiny model both make whole pictures; on a UNet of SD 1.5's size, with random weights and LoRAs of rank 32, both
denoise, in turn.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

from sciart_ext.compose.ways import fusion_of
from sciart_ext.lora.file import load_lora
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers
from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.standalone.denoising import denoise
from sciart_ext.standalone.generate import Settings, generate, load_loras, workload
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.prompts.encoding import Embeddings
from sciart_ext.standalone.samplers.levels import Model, trained_alphas
from sciart_ext.standalone.samplers.making import make_sampling
from sciart_ext.standalone.sampling import PromptRow, Rows
from sciart_ext.world import MODEL

from ..mixing.engine import TEXT_WIDTHS, WIDTHS, random_unet
from .multi_lora import FOLDER, Reference, checkout

METHODS = ("switch", "composite")
LORAS = ("red-striped-rocket", "yellow-visor-robot", "watercolor")
PROMPT, NEGATIVE = "a red striped rocket and a yellow visor robot in space", "planet"
CFG, RANK, SAME = 6.0, 32, 2
"""SAME: largest difference of a pixel, of 255, of pictures that are the same"""
NOISE_SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
                  "beta_schedule": "scaled_linear", "steps_offset": 1}


def measure(quick: bool) -> dict:
    """`switch_same`, `composite_same` and the differences; medians of our time over theirs. `ran` is False where no
    checkout of the reference is given."""
    if checkout() is None:
        return {"ran": False, "why": f"{FOLDER} names no checkout of maszhongming/Multi-LoRA-Composition"}
    result: dict = {"ran": True, "threads": torch.get_num_threads()}
    for method, largest in differences((1, 2) if quick else (1, 2, 3, 4, 5, 6)).items():
        result[f"{method}_largest_difference"] = largest
        result[f"{method}_same"] = max(largest) <= SAME
    model, size, steps, rounds = ("reduced", 128, 4, 3) if quick else ("sd15", 256, 3, 2)
    result["time"] = timed(model, size, steps, rounds)
    for method in METHODS:
        result[f"{method}_over_reference_time"] = result["time"]["over_reference"][method]
    return result


def differences(seeds: tuple[int, ...], steps: int = 20, period: int = 5) -> dict[str, list[int]]:
    """The largest difference of a pixel between theirs and ours, of each seed, whole pictures of the tiny model."""
    pipe = load_pipeline(MODEL, device="cpu")
    parts = SimpleNamespace(vae=pipe.vae, tokenizer=pipe.tokenizer, text_encoder=copy.deepcopy(pipe.text_encoder),
                            unet=copy.deepcopy(pipe.unet))
    reference = Reference(parts, _euler(pipe.scheduler.config), MODEL / "loras", LORAS)
    settings = Settings(PROMPT, NEGATIVE, steps=steps, sampler="Euler", cfg_scale=CFG)
    found: dict[str, list[int]] = {}
    for method in METHODS:
        recipe = _recipe(method, LORAS, 1.0, period)
        loras = load_loras(recipe, MODEL / "loras")
        for seed in seeds:
            noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
            theirs = reference.run(method, noise, steps, CFG, period, prompt=PROMPT, negative_prompt=NEGATIVE)[0]
            ours = generate(pipe, recipe, replace(settings, seed=seed), loras).image
            gap = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
            found.setdefault(method, []).append(int(gap.max()))
    return found


def timed(model: str, size: int, steps: int, rounds: int) -> dict:
    """Seconds of denoising one picture, theirs and ours in turn; and how far the latents are apart."""
    unet = random_unet(WIDTHS[model], TEXT_WIDTHS[model], torch.float32, torch.device("cpu"))
    vae = AutoencoderKL(block_out_channels=(16,) * 4, norm_num_groups=8)  # asked for its factor only
    pipe = SimpleNamespace(unet=unet, vae=vae, tokenizer=None, text_encoder=None)
    generator = torch.Generator().manual_seed(1)
    cond, uncond = (torch.randn(1, 77, TEXT_WIDTHS[model], generator=generator) for _ in range(2))
    noise = torch.randn(1, 4, size // 8, size // 8, generator=generator)
    scheduler = _euler(NOISE_SCHEDULE)
    taken, apart = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(LORAS):
            save_file(_random_lora(unet, seed), Path(folder) / f"{name}.safetensors")
        ours = Ours(unet, Path(folder), scheduler, cond, uncond)
        for number in range(rounds + 1):
            now, latents = {}, {}
            for method in METHODS:
                began = time.perf_counter()
                latents[method] = ours.run(method, noise, steps)
                now[f"{method}_ours"] = round(time.perf_counter() - began, 3)
            reference = Reference(pipe, scheduler, Path(folder), LORAS)
            for method in METHODS:
                began = time.perf_counter()
                theirs = reference.run(method, noise, steps, CFG, 2, prompt_embeds=cond,
                                       negative_prompt_embeds=uncond, output_type="latent")
                now[f"{method}_reference"] = round(time.perf_counter() - began, 3)
                apart[method] = float((latents[method] - theirs).abs().max() / theirs.abs().max())
            reference.release()
            if number:  # the first one warms up
                taken.append(now)
                print("compose round", number, now, flush=True)
    over = {method: round(statistics.median(one[f"{method}_ours"] / one[f"{method}_reference"] for one in taken), 3)
            for method in METHODS}
    return {"model": model, "size": size, "steps": steps, "loras": len(LORAS), "rounds": taken, "over_reference": over,
            "largest_difference_of_latents": apart}


class Ours:
    """The standalone's denoising with given embeddings of the prompts."""

    def __init__(self, unet: nn.Module, folder: Path, scheduler, cond: Tensor, uncond: Tensor):
        self.pipe = SimpleNamespace(unet=unet, scheduler=scheduler)
        files = [load_lora(folder / f"{name}.safetensors") for name in LORAS]
        self.mixer = Mixer(unet, diffusers_unet_layers(unet), files)
        self.cond, self.uncond = cond, uncond

    @torch.no_grad()
    def run(self, method: str, noise: Tensor, steps: int) -> Tensor:
        recipe = _recipe(method, LORAS, 1.0, 2)
        plan = compile_plan(recipe, steps).first
        prompts = [PromptRow(row, Embeddings(self.uncond if row.uncond else self.cond, None))
                   for row in plan.encoded_rows()]
        rows = Rows(self.pipe, self.mixer, plan, prompts, CFG, (8 * noise.shape[-1], 8 * noise.shape[-2]))
        self.mixer.choose(workload(rows, 1, noise.shape))
        with rows.acting():
            sampling = make_sampling("Euler", "Automatic", steps, Model(trained_alphas()))
            return denoise(sampling, rows, noise, None, fusion_of(plan, recipe.composition))


def _euler(config: dict) -> EulerDiscreteScheduler:
    """The WebUI's Euler of diffusers: from the model's last timestep to its first, both included."""
    return EulerDiscreteScheduler.from_config(config, timestep_spacing="linspace")


def _recipe(method: str, names: tuple[str, ...], weight: float, period: int):
    composition = {"period": period} if method == "switch" else {}
    return parse_recipe({"compose": method, "composition": composition,
                         "loras": [{"name": name, "weight": weight} for name in names]})


def _random_lora(unet: nn.Module, seed: int) -> dict[str, Tensor]:
    """A file's tensors, in PEFT's names: the attention's linear layers, a tenth of their size."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, layer in unet.named_modules():
        if ".attn" in path and isinstance(layer, nn.Linear):
            down = torch.randn(RANK, layer.in_features, generator=generator)
            up = torch.randn(layer.out_features, RANK, generator=generator)
            scale = 0.1 * float(layer.weight.norm() / (up @ down).norm())
            tensors[f"unet.{path}.lora_A.weight"], tensors[f"unet.{path}.lora_B.weight"] = down, up * scale
    return tensors
