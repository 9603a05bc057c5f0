"""Other kinds of model of the toy architectures: their configurations, made from those of the plain ones."""

from __future__ import annotations

import copy


def v_prediction(config: dict) -> dict:
    """SD2's, whose network predicts the velocity instead of the noise, as the 768 pixel checkpoints do."""
    config = copy.deepcopy(config)
    config["model"]["params"]["parameterization"] = "v"
    return config


def pix2pix(config: dict) -> dict:
    """SD1's as InstructPix2Pix: the network reads the picture to edit beside the latent."""
    config = copy.deepcopy(config)
    config["model"]["target"] = "modules.models.diffusion.ddpm_edit.LatentDiffusion"
    params = config["model"]["params"]
    params.update(first_stage_key="edited", cond_stage_key="edit", conditioning_key="hybrid")
    params["unet_config"]["params"]["in_channels"] = 8
    return config


def inpainting_xl(config: dict) -> dict:
    """SDXL's whose network reads mask and masked picture beside the latent."""
    config = copy.deepcopy(config)
    config["model"]["params"]["network_config"]["params"]["in_channels"] = 9
    return config


def refiner(config: dict) -> dict:
    """SDXL's refiner: OpenCLIP alone, an aesthetic score in place of the target size, a UNet of its own shape."""
    config = copy.deepcopy(config)
    params = config["model"]["params"]
    embedders = params["conditioner_config"]["params"]["emb_models"][1:-1]
    size = embedders[-1]
    embedders.append({**size, "input_key": "aesthetic_score"})
    params["conditioner_config"]["params"]["emb_models"] = embedders
    params["network_config"]["params"].update(
        adm_in_channels=64 + 2 * 256 * 2 + 256, model_channels=64, num_head_channels=32, channel_mult=[1, 1, 2, 2],
        transformer_depth=1, context_dim=64)
    return config
