"""Pictures of the tiny model by the hundred: one prompt, many seeds, LoRAs composed in several ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from sciart_ext.lora.file import LoraFile, load_lora
from sciart_ext.mixer.mixture import Mixture, bind
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import model_parts
from sciart_ext.standalone.prompts import encode

COMPOSITIONS = ("merge", "switch", "composite")
SWITCH_PERIOD = 5


class Pictures:
    """The model and its LoRAs in memory."""

    def __init__(self, model: Path, device: str = "cpu"):
        self.pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, safety_checker=None)
        self.pipe.to(device)
        self.device = device
        self.loras: dict[str, LoraFile] = {
            path.stem: load_lora(path) for path in sorted((model / "loras").glob("*.safetensors"))}

    @torch.no_grad()
    def make(self, prompt: str, seeds: Sequence[int], weights: Mapping[str, float] | None = None,
             compose: str = "merge", steps: int = 20, cfg: float = 6.0, batch: int = 25) -> np.ndarray:
        """Pictures (seeds, 128, 128, 3) uint8, by DDIM.

        compose: merge; switch and composite as maszhongming/Multi-LoRA-Composition carries them out: text encoders
        see the LoRAs that act at the first step, the first of switch's acts one step longer than the others.
        """
        weights = dict(weights or {})
        names = [name.replace(" ", "-") for name in weights]
        entries = parse_recipe({"loras": [{"name": name, "weight": 1.0} for name in names]}).loras if names else []
        mixture = bind(model_parts(self.pipe), [self.loras[name] for name in names], entries, "tiny", "branch")
        own = [tuple(w if i == j else 0.0 for j, w in enumerate(weights.values())) for i in range(len(weights))]
        together = tuple(weights.values())
        with mixture.encoding(own[0] if compose == "switch" else together):
            # the reference encodes both prompts with its adapters on
            cond, uncond = (encode(self.pipe, text, 1).tokens for text in (prompt, ""))
        made = []
        for start in range(0, len(seeds), batch):
            latents = self._sampled(mixture, torch.cat([uncond, cond]), seeds[start:start + batch],
                                    list(_passes(compose, own, together, steps)), cfg)
            decoded = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor).sample
            made.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(made)

    def _sampled(self, mixture: Mixture, text: Tensor, seeds: Sequence[int], passes: list[list[tuple[float, ...]]],
                 cfg: float) -> Tensor:
        scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        scheduler.set_timesteps(len(passes))
        side = self.pipe.unet.config.sample_size
        latents = torch.cat([torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(int(seed)))
                             for seed in seeds]).to(self.device)
        text = text.repeat_interleave(len(seeds), 0)
        with ExitStack() as stack:
            if mixture.unet.count:
                stack.enter_context(mixture.unet)
            for time, gates in zip(scheduler.timesteps, passes):
                predictions = []
                for one in gates:
                    if mixture.unet.count:
                        mixture.unet.set_gates([one])
                    predictions.append(self.pipe.unet(torch.cat([latents, latents]), time, text).sample)
                uncond, cond = (sum(predictions) / len(predictions)).chunk(2)
                latents = scheduler.step(uncond + cfg * (cond - uncond), time, latents).prev_sample
        return latents


def _passes(compose: str, own: list[tuple], together: tuple, steps: int) -> Iterator[list[tuple[float, ...]]]:
    """For each step, the gates of each UNet call whose predictions are averaged."""
    for step in range(steps):
        if compose == "composite":
            yield own
        elif compose == "switch":
            yield [own[max(step - 1, 0) // SWITCH_PERIOD % len(own)]]
        else:
            yield [together]
