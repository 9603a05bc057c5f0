"""The tiny world's networks with random weights, as a diffusers folder with one LoRA."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from training import architecture


def write_untrained(folder: Path) -> Path:
    words = architecture.tokenizer(folder / "tokenizer")
    parts = {"vae": architecture.autoencoder(), "unet": architecture.unet(), "text_encoder":
             architecture.text_encoder(words)}
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        parts["unet"].conv_out.weight.mul_(8)
        parts["vae"].decoder.conv_out.weight.mul_(8)
    pipe = StableDiffusionPipeline(**parts, tokenizer=words, scheduler=architecture.scheduler(), safety_checker=None,
                                   feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder)
    architecture.write_vocabulary(folder / "tokenizer")
    tensors = {}
    for name, module in pipe.unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "proj_in", "conv1")):
            stem, weight = "lora_unet_" + name.replace(".", "_"), module.weight
            down = torch.randn(4, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
            tensors[f"{stem}.lora_down.weight"] = down
            tensors[f"{stem}.lora_up.weight"] = torch.randn(len(weight), 4, *[1] * (weight.dim() - 2),
                                                            generator=generator)
            tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    (folder / "loras").mkdir()
    save_file(tensors, folder / "loras" / "untrained.safetensors")
    return folder
