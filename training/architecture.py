"""The tiny Stable Diffusion's networks, untrained: SD 1's architecture at toy size, in diffusers and transformers.

Every width is a multiple of 32, because the WebUI's UNet and autoencoder normalise in 32 groups.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sciart_ext.world.scenes import SIDE

from .vocabulary import write_vocabulary

LATENT_SIDE = SIDE // 8
TEXT_WIDTH = 128


def autoencoder() -> AutoencoderKL:
    """KL autoencoder: (n, 3, 128, 128) ↔ (n, 4, 16, 16)."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=32,
        sample_size=SIDE, scaling_factor=1.0)


def unet() -> UNet2DConditionModel:
    """Cross-attention throughout, on grids of 16 × 16 and 8 × 8."""
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE, block_out_channels=(64, 128), layers_per_block=2, norm_num_groups=32,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=4)


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with the tiny world's vocabulary, which is written to the folder."""
    write_vocabulary(folder)
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True)


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text transformer. The last norm starts off zero: the WebUI's emphasis divides by its mean."""
    torch.manual_seed(3)
    end = words.eos_token_id
    model = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(words), hidden_size=TEXT_WIDTH, projection_dim=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77, bos_token_id=words.bos_token_id,
        eos_token_id=end, pad_token_id=end))
    for name, parameter in model.named_parameters():
        if name.endswith("final_layer_norm.bias"):
            parameter.data.fill_(0.2)
    return model


def scheduler() -> DDIMScheduler:
    """SD 1's noise."""
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                         set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon")
