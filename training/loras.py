"""Trains a LoRA for each style and each individual on the frozen base model, with peft, and saves it as kohya does."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from sciart_ext.world import MODEL
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, STYLES, Scene, random_scene

from .base import Noise, encoded, token_ids
from .data import Sampler
from .loop import Training

RANK, KEPT_RANK = 8, 4
"""of a LoRA while it is trained, and in its file: the best approximation of its deltas at half the size"""
UNET_LAYERS = r".*attentions.*\.(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2|proj_in|proj_out)"
TEXT_LAYERS = r".*layers.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
UNTOLD = 0.2
"""share of a style's pictures shown without their caption: guidance weakens a style that only captions call up"""
ALPHA = {"science": 1.28 * KEPT_RANK}
"""of a LoRA's file where it is not its rank: as trained, guidance leaves little of this style at weight 1"""
# what is harder to learn: times as many steps, times the rate
HARDER = {"purple submarine": (1.5, 1.0), "ringed blue planet": (2.0, 2.0),
          **dict.fromkeys(STYLES, (1.5, 2.0))}


def train(folder: Path, steps: int = 400, scenes: int = 1500, batch: int = 16, rate: float = 1e-3,
          names: Sequence[str] = (*STYLES, *INDIVIDUALS)) -> None:
    unknown = set(names) - {*STYLES, *INDIVIDUALS}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; accepted: {', '.join((*STYLES, *INDIVIDUALS))}")
    for name in names:
        number = [*STYLES, *INDIVIDUALS].index(name)
        longer, faster = HARDER.get(name, (1.0, 1.0))
        train_one(folder, name, number, round(longer * steps), scenes, batch, faster * rate)


def train_one(folder: Path, name: str, number: int, steps: int, scenes: int, batch: int, rate: float) -> None:
    latents, captions = encoded(sampler_of(name), scenes, seed=31 + number, folder=folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, safety_checker=None)
    unet, text, words = pipe.unet.to(device), pipe.text_encoder.to(device), pipe.tokenizer
    torch.manual_seed(31 + number)
    for model, layers in ((unet, UNET_LAYERS), (text, TEXT_LAYERS)):
        model.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers), model)
    both = nn.ModuleDict({"unet": unet, "text": text})
    taught = {key: value for key, value in both.named_parameters() if value.requires_grad}
    noise = Noise(pipe.scheduler.alphas_cumprod.to(device))
    untold = UNTOLD if name in STYLES else 0.0
    stem = name.replace(" ", "-")
    training = Training(f"lora-{stem}", steps, taught, rate, folder,
                        {"scenes": scenes, "batch": batch, "rank": RANK, "kept_rank": KEPT_RANK, "untold": untold},
                        seed=31 + number, warm_up=30)
    for generator in training.run():
        chosen = torch.randint(len(latents), (batch,), generator=generator)
        texts = ["" if untold and torch.rand((), generator=generator) < untold else captions[i]
                 for i in chosen.tolist()]
        with training.autocast():
            loss = noise.loss(unet, latents[chosen].to(device), text(token_ids(words, texts).to(device))[0], generator)
        training.learn(loss=loss)
    (MODEL / "loras").mkdir(parents=True, exist_ok=True)
    alpha = float(ALPHA.get(name, KEPT_RANK))
    tensors = {**kohya_tensors(unet, "lora_unet_", alpha), **kohya_tensors(text, "lora_te_text_model_", alpha)}
    metadata = {"ss_output_name": stem, "ss_network_module": "networks.lora", "ss_network_dim": str(KEPT_RANK),
                "ss_network_alpha": str(alpha), "ss_base_model_version": "sd_v1"}
    save_file(tensors, MODEL / "loras" / f"{stem}.safetensors", metadata=metadata)


def sampler_of(name: str) -> Sampler:
    """Scenes that teach a style (any ordinary things, in it), or an individual (alone or beside an ordinary thing)."""
    sampler = functools.partial(_styled if name in STYLES else _with_individual, name)
    sampler.__name__ = name.replace(" ", "-")
    return sampler


def _styled(style: str, rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    return random_scene(rng), {style: 1.0}


def _with_individual(name: str, rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    if rng.random() < 0.6:
        return random_scene(rng, [INDIVIDUALS[name]], individuals=[name]), {}
    other = str(rng.choice([kind for kind in KINDS if kind != INDIVIDUALS[name]]))
    return random_scene(rng, [INDIVIDUALS[name], other], individuals=[name, None]), {}


def kohya_tensors(model: nn.Module, prefix: str, alpha: float) -> dict[str, Tensor]:
    """The injected LoRA's tensors under kohya's names, in half precision."""
    tensors = {}
    for path, module in model.named_modules():
        if hasattr(module, "lora_A"):
            stem = prefix + re.sub(r"^text_model\.", "", path).replace(".", "_")
            down, up = reduced(module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach())
            tensors[f"{stem}.lora_down.weight"] = down.half().cpu().contiguous()
            tensors[f"{stem}.lora_up.weight"] = up.half().cpu().contiguous()
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


def reduced(down: Tensor, up: Tensor, rank: int = KEPT_RANK) -> tuple[Tensor, Tensor]:
    """The factors (rank, n, …) and (m, rank, …) whose product is nearest to up · down (Eckart and Young)."""
    left, values, right = torch.linalg.svd(up.flatten(1).float() @ down.flatten(1).float(), full_matrices=False)
    root = values[:rank].sqrt()
    return (root[:, None] * right[:rank]).view(rank, *down.shape[1:]), (left[:, :rank] * root).view(
        len(up), rank, *up.shape[2:])
