"""What a combined file says of itself: in kohya's words, which WebUIs, ComfyUI and sites read.

A1111 v1.10.1 takes a file for SDXL by `ss_base_model_version`, for SD 2 by `ss_v2`, and for SD 1 where there is any
metadata at all; its list hides the cards of other families than the loaded model's. So a file whose base model is not
known has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import save

from .. import __version__
from ..lora.base_model import UNKNOWN

METADATA_KEY = "sciart_combined"
_VERSIONS = {"SD1": "sd_v1", "SD2": "sd_v2", "SDXL": "sdxl_base_v1-0"}
# Of SD 2 there are two, at 512 and at 768 pixels, and a LoRA does not tell which.
_SPECIFICATIONS = {"SD1": ("stable-diffusion-v1/lora", "diffusers", "512x512"),
                   "SDXL": ("stable-diffusion-xl-v1-base/lora", "https://github.com/Stability-AI/generative-models",
                            "1024x1024")}
_LEGACY = slice(0x100000, 0x110000)


def metadata_of(tensors: Mapping[str, torch.Tensor], base: str, name: str, rank: int, data: Mapping[str, object],
                sources: Sequence[str]) -> dict[str, str] | None:
    """The metadata of these tensors; None where the base model is not known.

    name: of the file, without its ending; data: what was combined and how; sources: the LoRAs' names.
    """
    if base == UNKNOWN:
        return None
    metadata = {"ss_v2": str(base == "SD2"), "ss_base_model_version": _VERSIONS[base],
                "ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(rank),
                "ss_output_name": name}
    hashes = _hashes(tensors, metadata)
    if base in _SPECIFICATIONS:
        architecture, implementation, resolution = _SPECIFICATIONS[base]
        metadata |= {"modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": architecture,
                     "modelspec.implementation": implementation, "modelspec.title": name,
                     "modelspec.resolution": resolution, "modelspec.merged_from": ", ".join(sources)}
    return {**metadata, **hashes, "sciart_version": __version__,
            METADATA_KEY: json.dumps(data, ensure_ascii=False)}


def _hashes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Of the tensors alone, and of a piece of the file with what training says, as sd-webui-additional-networks has
    it; galleries look files up by them, and the WebUI takes the first for that of the file."""
    written = save(dict(tensors), dict(metadata))
    start = 8 + int.from_bytes(written[:8], "little")
    return {"sshs_model_hash": hashlib.sha256(memoryview(written)[start:]).hexdigest(),
            "sshs_legacy_hash": hashlib.sha256(written[_LEGACY]).hexdigest()[:8]}
