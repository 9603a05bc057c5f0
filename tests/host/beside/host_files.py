"""Files of the host's other kinds for the toy SD1 checkpoint: a hypernetwork, an embedding, a DreamBooth checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sciart_ext.lora.file import load_lora

PARTS = {"model.diffusion_model.": "unet_", "cond_stage_model.transformer.": "te1_"}
WIDTHS = (32, 64, 128)


def _saved(value: dict, path: Path) -> Path:
    """Pickled in the format that the host's check of pickles knows from every version of torch."""
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def write_hypernetwork(path: Path) -> Path:
    """As the host's own training saves one."""
    random = torch.Generator().manual_seed(3)

    def module(width: int) -> dict[str, torch.Tensor]:
        return {f"linear.{i}.{name}": 0.5 * torch.randn(*shape, generator=random) / width**0.5 for i, sides in
                enumerate(((2 * width, width), (width, 2 * width))) for name, shape in
                (("weight", sides), ("bias", sides[:1]))}

    return _saved({**{width: (module(width), module(width)) for width in WIDTHS}, "step": 1000, "name": path.stem,
                   "layer_structure": [1, 2, 1], "activation_func": "linear", "is_layer_norm": False,
                   "weight_initialization": "Normal", "use_dropout": False, "activate_output": False}, path)


def write_embedding(path: Path, vectors: int = 2, width: int = 64) -> Path:
    """A textual inversion embedding as the host's own training saves one."""
    random = torch.Generator().manual_seed(4)
    vector = torch.randn(vectors, width, generator=random)
    return _saved({"string_to_token": {"*": 265}, "string_to_param": {"*": vector}, "name": path.stem, "step": 500,
                   "sd_checkpoint": None, "sd_checkpoint_name": None}, path)


def write_dreambooth(path: Path, checkpoint: Path) -> Path:
    """A checkpoint as DreamBooth trainers of the original code save it: a pickled `state_dict` in half precision beside
    what the training was at; UNet and text encoder changed, the model's configuration beside it."""
    random = torch.Generator().manual_seed(5)
    state = {name: tensor * (1 + 0.05 * torch.randn(tensor.shape, generator=random)) if tensor.is_floating_point()
             and not name.startswith("first_stage_model.") else tensor for name, tensor in load_file(checkpoint).items()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    shutil.copyfile(checkpoint.with_suffix(".yaml"), path.with_suffix(".yaml"))
    return _saved({"epoch": 1, "global_step": 800, "state_dict": half}, path)


def write_baked(path: Path, checkpoint: Path, loras: Mapping[Path, float]) -> Path:
    """The toy checkpoint with LoRAs in its weights, and its configuration beside it."""
    state = load_file(checkpoint)
    names = {part + key[len(prefix):-len(".weight")].replace(".", "_"): key for prefix, part in PARTS.items()
             for key in state if key.startswith(prefix) and key.endswith(".weight")}
    for file, weight in loras.items():
        for name, delta in load_lora(file).layers.items():
            own = state[names[name]]
            state[names[name]] = own + weight * delta.of(own.float()).reshape(own.shape).to(own.dtype)
    save_file(state, path)
    shutil.copyfile(checkpoint.with_suffix(".yaml"), path.with_suffix(".yaml"))
    return path
