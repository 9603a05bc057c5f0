"""maszhongming/Multi-LoRA-Composition itself, the reference of switch and composite, run from a checkout of it."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from diffusers.utils import logging
from torch import Tensor

FOLDER = "SCIART_MULTI_LORA"
PIPELINE, CALLBACKS = Path("pipeline/pipeline_0.26.3.py"), Path("callbacks.py")


def checkout() -> Path | None:
    """The folder that `SCIART_MULTI_LORA` names; None where it names none. Raises where it is no checkout."""
    if FOLDER not in os.environ:
        return None
    folder = Path(os.environ[FOLDER]).expanduser()
    for file in (PIPELINE, CALLBACKS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{FOLDER}: no {folder / file}; it is to name a checkout of "
                                    "maszhongming/Multi-LoRA-Composition")
    return folder


class Reference:
    """Their pipeline on parts of one of ours, with LoRAs as PEFT adapters on its UNet and its text encoder.

    pipe: has what theirs is made of, `text_encoder` and `tokenizer` None where embeddings will be given; its models get
    the adapters, until `release`. folder, loras: the files' folder and their names.
    """

    def __init__(self, pipe, scheduler, folder: Path, loras: Sequence[str]):
        theirs = checkout()
        module = _loaded(theirs / PIPELINE)
        self.make_callback = _loaded(theirs / CALLBACKS).make_callback
        self.names = [name.replace("-", "_") for name in loras]
        warnings.filterwarnings("ignore", "Already found a `peft_config`|.*LoraLoaderMixin")
        logging.set_verbosity_error()
        self.pipeline = module.StableDiffusionPipeline(
            vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
            scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        self.pipeline.set_progress_bar_config(disable=True)
        for name, adapter in zip(loras, self.names):
            self.pipeline.load_lora_weights(str(folder), weight_name=f"{name}.safetensors", adapter_name=adapter)

    @torch.no_grad()
    def run(self, method: str, latents: Tensor, steps: int, cfg: float, period: int, **prompt):
        """What their example does for the method: latents, or with output_type="np" pictures; prompt: their pipeline's
        arguments of it."""
        switch = method == "switch"
        self.pipeline.set_adapters(self.names[:1] if switch else self.names)
        return self.pipeline(
            latents=latents, num_inference_steps=steps, guidance_scale=cfg,
            height=8 * latents.shape[-2], width=8 * latents.shape[-1],
            callback_on_step_end=self.make_callback(period, self.names) if switch else None,
            lora_composite=method == "composite", **prompt).images

    def release(self) -> None:
        """Takes the adapters off."""
        self.pipeline.unload_lora_weights()


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"multi_lora_{path.stem.replace('.', '_')}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
