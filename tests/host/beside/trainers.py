"""Saves a LoRA for the toy SD1 checkpoint with a trainer's own code; its up matrices are random instead of trained.

    python trainers.py kohya|easyphoto FOLDER_OF_THE_TRAINER OUT.safetensors
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def network_module(trainer: str, folder: Path) -> ModuleType:
    """The trainer's file that makes and saves LoRAs."""
    place = {"kohya": "networks/lora.py", "easyphoto": "scripts/train_kohya/utils/lora_utils.py"}[trainer]
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("trainer_of_loras", folder / place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(trainer: str, folder: Path, out: Path) -> None:
    torch.manual_seed(21)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128), layers_per_block=2, cross_attention_dim=64, attention_head_dim=8,
        down_block_types=(CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP))
    text = CLIPTextModel(CLIPTextConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=3,
                                        num_attention_heads=4, projection_dim=64))
    if not hasattr(text, "text_model"):  # transformers 5; trainers name files as earlier ones did
        text = torch.nn.ModuleDict({"text_model": text})
    network = network_module(trainer, folder).create_network(1.0, 4, 2.0, None, text, unet)
    network.apply_to(text, unet, True, True)
    for name, parameter in network.named_parameters():
        if "lora_up" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "2.0",
                "ss_base_model_version": "sd_v1", "ss_output_name": out.stem}
    if trainer == "kohya":  # its save_weights loads the whole trainer, only to add two hashes to the metadata
        save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, out, metadata)
    else:
        network.save_weights(str(out), torch.float16, metadata)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
