"""The host's loaded model: its UNet and text encoders as parts that LoRAs can reach."""

from __future__ import annotations

import torch
from modules import lowvram, shared
from torch import nn

from ....errors import SciArtError
from ....mixer.mixture import Part
from ....mixer.targets import Target, clip_layers, ldm_unet_layers, open_clip_layers
from ..lora_files import networks


def model_parts(sd_model: nn.Module) -> dict[str, Part]:
    """`unet` and `te1` (and `te2`) of an SD1, SD2 or SDXL model of the host."""
    unet = getattr(getattr(sd_model, "model", None), "diffusion_model", None)
    if not hasattr(unet, "input_blocks"):
        raise SciArtError("checkpoint", f"{model_name(sd_model)} is not SD1, SD2 or SDXL; SciArt mixes these")
    parts = {"unet": Part(unet, ldm_unet_layers(unet, by_block=_moved_by_block(sd_model)))}
    for number, encoder in enumerate(_text_encoders(sd_model), start=1):
        prefix = f"te{number}"
        wrapped = getattr(encoder, "wrapped", encoder)
        if hasattr(wrapped, "transformer"):
            parts[prefix] = Part(wrapped.transformer, clip_layers(wrapped.transformer, prefix))
        elif hasattr(wrapped, "model"):
            parts[prefix] = Part(wrapped.model, open_clip_layers(wrapped.model, prefix))
    return parts


def tokenizing_encoder(sd_model: nn.Module) -> nn.Module:
    """The host's text encoder that lays out prompts in chunks; SDXL's two share their columns."""
    return _text_encoders(sd_model)[0]


def model_name(sd_model: nn.Module) -> str:
    """What the host calls the loaded checkpoint."""
    return sd_model.sd_checkpoint_info.name_for_extra


def loaded_networks() -> tuple:
    """What the built-in Lora extension would have in every weight: when this is another, weights are out of date."""
    return tuple((network.name, network.te_multiplier, network.unet_multiplier, network.dyn_dim)
                 for network in networks().loaded_networks)


def update_weights(module: nn.Module) -> None:
    """Makes the built-in Lora extension bring a module's weight up to date now, not within our forward.

    It keeps whatever it finds in the weight at its first update as the original: it must find the host's own.
    """
    with torch.no_grad():
        networks().network_apply_weights(module)


def untouched_weight(target: Target) -> torch.Tensor:
    """A weight or bias as the checkpoint has it, also while the built-in Lora extension has networks of its own in it:
    of what it changes it keeps a copy in main memory."""
    attention = isinstance(target.bracket, nn.MultiheadAttention)
    keeper = target.bracket if attention else target.module
    if not getattr(keeper, "network_current_names", ()):
        return target.weight()
    kept = keeper.network_bias_backup if target.is_bias else keeper.network_weights_backup
    if attention and not target.is_bias:  # in_proj_weight and that of out_proj
        kept = kept[0 if target.module is keeper else 1]
    if attention and target.is_bias and target.module is keeper:
        return target.weight()  # in_proj_bias, which it never changes
    return target.weight() if kept is None else kept


def _text_encoders(sd_model: nn.Module) -> list[nn.Module]:
    if hasattr(sd_model, "conditioner"):
        return [embedder for embedder in sd_model.conditioner.embedders if hasattr(embedder, "wrapped")]
    return [sd_model.cond_stage_model]


def _moved_by_block(sd_model: nn.Module) -> bool:
    return lowvram.is_enabled(sd_model) and shared.cmd_opts.lowvram
