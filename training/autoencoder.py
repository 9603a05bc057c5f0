"""Trains the autoencoder on scenes in every style: small crops first, whole pictures last."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from sciart_ext.world import MODEL
from sciart_ext.world.oracle import as_tensor
from sciart_ext.world.scenes import SIDE

from . import architecture
from .data import Drawn, anything, drawn_set
from .loop import Training

CROP = 64
WHOLE_FROM = 0.8
"""progress from which whole pictures are shown, a quarter as many at a time"""
DIVERGENCE = 1e-6


def train(folder: Path, steps: int = 6000, scenes: int = 16000, batch: int = 16, rate: float = 2e-3) -> None:
    data = drawn_set(anything, scenes, seed=11, folder=folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = architecture.autoencoder().to(device, memory_format=torch.channels_last)
    training = Training("autoencoder", steps, dict(model.named_parameters()), rate, folder,
                        {"scenes": scenes, "batch": batch}, seed=12)
    for generator in training.run():
        pictures = crops(data, batch, training.progress >= WHOLE_FROM, generator)
        pictures = pictures.to(device, memory_format=torch.channels_last)
        with training.autocast():
            latents = model.encode(pictures).latent_dist
            noise = torch.randn(latents.mean.shape, generator=generator).to(device)
            rebuilt = model.decode(latents.mean + latents.std * noise).sample
        training.learn(**losses_of(rebuilt.float(), pictures, latents.mean.float(), latents.logvar.float()))
    model.load_state_dict(training.average)
    measured = 1 / latent_deviation(model, data, device)
    model.register_to_config(scaling_factor=round(measured, 4))
    model.half().cpu().to(memory_format=torch.contiguous_format).save_pretrained(MODEL / "vae")


def crops(data: Drawn, batch: int, whole: bool, generator: torch.Generator) -> Tensor:
    """(n, 3, h, w), -1 to 1: as many pixels a step when pictures are whole."""
    if whole:
        batch = max(batch * CROP**2 // SIDE**2, 1)
    chosen = torch.randint(len(data.pictures), (batch,), generator=generator).numpy()
    pictures = data.pictures[chosen]
    if not whole:
        corners = torch.randint(SIDE - CROP + 1, (batch, 2), generator=generator).tolist()
        pictures = [picture[y:y + CROP, x:x + CROP] for picture, (y, x) in zip(pictures, corners)]
    return torch.cat([as_tensor(picture[None]) for picture in pictures])


def losses_of(rebuilt: Tensor, pictures: Tensor, mean: Tensor, logvar: Tensor) -> dict[str, Tensor]:
    """Differences of pixels and of their slopes, and the latents' divergence from a unit Gaussian.

    Absolute differences alone leave small objects grey for thousands of steps; squared ones find their colours first.
    """
    slopes = sum((torch.diff(rebuilt, dim=dim) - torch.diff(pictures, dim=dim)).abs().mean() for dim in (2, 3))
    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum() / len(mean)
    return {"squares": 4 * F.mse_loss(rebuilt, pictures), "pixels": 0.5 * F.l1_loss(rebuilt, pictures),
            "slopes": 0.3 * slopes, "divergence": DIVERGENCE * divergence}


@torch.no_grad()
def latent_deviation(model: AutoencoderKL, data: Drawn, device: str, count: int = 512) -> float:
    """Standard deviation of the latents of drawn scenes: its inverse is the model's scale factor."""
    pictures = as_tensor(data.pictures[:count]).to(device)
    return float(torch.cat([model.encode(chunk).latent_dist.mean for chunk in pictures.split(32)]).std())
