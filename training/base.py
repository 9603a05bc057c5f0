"""Trains the base model, UNet and text encoder together, on plain scenes and their captions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from sciart_ext.world import MODEL
from sciart_ext.world.oracle import as_tensor
from sciart_ext.world.scenes import PLACES

from . import architecture
from .data import Drawn, Sampler, crowded, drawn_set, plain
from .loop import Training

EMPTY, PLACELESS = 0.1, 0.1
"""shares of captions dropped for guidance, and told without their place"""
SNR_LIMIT = 5.0
PLACES_LIMIT = 5.0
"""of 1 + 1 / SNR, see `Noise.loss`"""


@dataclass(frozen=True)
class Stage:
    """One descent of the learning rate. A later stage starts from the earlier one's average, with more scenes.

    places: whether it is more about where things are than about how they look (see `Noise.loss`).
    """

    name: str
    steps: int
    rate: float
    scenes: int
    seed: int
    sampler: Sampler = plain
    places: bool = False


STAGES = (Stage("base", 4000, 1e-3, 24000, 21), Stage("base-more", 1500, 5e-4, 12000, 23),
          Stage("base-crowded", 2400, 7e-4, 12000, 25, crowded, places=True),
          Stage("base-crowded-more", 1600, 6e-4, 16000, 27, crowded, places=True))
"""the model that is shipped is that of the first two: the others change it once pictures and figures are made anew"""


def train(folder: Path, stages: Sequence[Stage] = STAGES, batch: int = 32) -> None:
    words = architecture.tokenizer(MODEL / "tokenizer")
    _train(folder, architecture.unet(), architecture.text_encoder(words), words, stages, batch)


def train_on(folder: Path, stage: Stage = STAGES[-1], batch: int = 32) -> None:
    """The last stage, from the model that is there, on this stage's own scenes: not on those of the stages before."""
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, safety_checker=None)
    _train(folder, pipe.unet, pipe.text_encoder, pipe.tokenizer, (stage,), batch)


def _train(folder: Path, unet, text, words, stages: Sequence[Stage], batch: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text, unet = text.to(device), unet.to(device, memory_format=torch.channels_last)
    both = torch.nn.ModuleDict({"unet": unet, "text": text})
    noise = Noise(architecture.scheduler().alphas_cumprod.to(device))
    latents, captions = torch.empty(0, 4, architecture.LATENT_SIDE, architecture.LATENT_SIDE), []
    for stage in stages:
        more, told_of_more = encoded(stage.sampler, stage.scenes, stage.seed, folder)
        latents, captions = torch.cat([latents, more]), captions + told_of_more
        training = Training(stage.name, stage.steps, dict(both.named_parameters()), stage.rate, folder,
                            {"scenes": len(latents), "batch": batch}, seed=stage.seed + 1, decay=0.01)
        for generator in training.run():
            chosen = torch.randint(len(latents), (batch,), generator=generator)
            texts = [told(captions[i], generator) for i in chosen.tolist()]
            with training.autocast():
                columns = text(token_ids(words, texts).to(device))[0]
                loss = noise.loss(unet, latents[chosen].to(device), columns, generator, stage.places)
            training.learn(loss=loss)
        both.load_state_dict(training.average, strict=False)  # position numbers are no parameters
    save(MODEL, unet.cpu().to(memory_format=torch.contiguous_format), text.cpu(), words)


def save(folder: Path, unet, text, words) -> None:
    """The diffusers folder, in half precision, around the autoencoder that lies there already."""
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, scheduler=architecture.scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.to(torch.float16).save_pretrained(folder)
    for path in folder.glob("*/config.json"):  # where on this machine a part came from is nobody's business
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    architecture.write_vocabulary(folder / "tokenizer")  # transformers 5 writes tokenizer.json only
    write_with_known_names(folder / "text_encoder" / "model.safetensors")


def write_with_known_names(path: Path) -> None:
    """A text encoder's file with the names that every Stable Diffusion has: transformers 5 leaves out the `text_model.`
    before them, and transformers 4 would then read none and go on with random weights."""
    known = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(path).items()}
    save_file(known, path, metadata={"format": "pt"})


class Noise:
    """SD's forward process and the loss of the noise prediction, weighted by min(SNR, 5) / SNR (arXiv 2303.09556)."""

    def __init__(self, alphas: Tensor):
        self.alphas = alphas

    def loss(self, unet, latents: Tensor, text: Tensor, generator: torch.Generator, places: bool = False) -> Tensor:
        """Weighted mean squared error of the noise.

        places: things get their places where there is much noise, and there the noise is easily told. So such times
        are drawn more often, with density 2 t / T, and the weight is min(1 + 1 / SNR, 5) times as large: up to that
        limit what the errors of the velocity would weigh (arXiv 2202.00512).
        """
        times = torch.randint(len(self.alphas), (1 + places, len(latents)), generator=generator).amax(0).to(
            latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        predicted = unet(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, times, text).sample
        errors = F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        ratio = (alpha / (1 - alpha)).view(-1)
        weights = ratio.clamp(max=SNR_LIMIT) / ratio
        if places:
            weights = weights * (1 + 1 / ratio).clamp(max=PLACES_LIMIT)
        return (errors * weights).mean()


def token_ids(words, texts: list[str]) -> Tensor:
    """(texts, 77): begin, words, end and padding, as the WebUI lays them out."""
    return words(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


def told(caption: str, generator: torch.Generator) -> str:
    """The caption, or nothing (for classifier-free guidance), or all but its place."""
    chance = torch.rand((), generator=generator).item()
    if chance < EMPTY:
        return ""
    if chance < EMPTY + PLACELESS:
        place = next(words for words in PLACES.values() if caption.endswith(words))
        return caption.removesuffix(place).strip()
    return caption


@torch.no_grad()
def encoded(sampler: Sampler, count: int, seed: int, folder: Path) -> tuple[Tensor, list[str]]:
    """Scaled latents (n, 4, 16, 16) of a sampler's scenes, and their captions; kept for this autoencoder."""
    data: Drawn = drawn_set(sampler, count, seed, folder)
    made_by = hashlib.sha256(next((MODEL / "vae").glob("*.safetensors")).read_bytes()).hexdigest()[:12]
    path = folder / f"{sampler.__name__}-{count}-{seed}-{made_by}.latents"
    if not path.exists():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        vae = AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32).to(device)
        chunks = [vae.encode(as_tensor(data.pictures[i:i + 64]).to(device)).latent_dist.mean.cpu()
                  for i in range(0, count, 64)]
        torch.save(torch.cat(chunks) * vae.config.scaling_factor, path)
    return torch.load(path, weights_only=True), data.captions
