"""Which base model a LoRA is made for: from shapes and names of its layers, then from what the file says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .kinds import Delta

_CONTEXT_WIDTHS = {768: "SD1", 1024: "SD2", 2048: "SDXL"}
# Names of layers that one family alone has, as they are found in a list of names, one a line.
_LAYERS = tuple((re.compile(pattern, re.M), base) for pattern, base in (
    (r"^te2_", "SDXL"), (r"^unet_.*_transformer_blocks_[1-9]", "SDXL"),
))
# How ss_base_model_version (kohya) and modelspec.architecture begin.
_STATED = (
    ("sdxl", "SDXL"), ("stable-diffusion-xl", "SDXL"), ("sd_v2", "SD2"), ("stable-diffusion-v2", "SD2"),
    ("sd_v1", "SD1"), ("stable-diffusion-v1", "SD1"), ("sd3", "SD3"), ("stable-diffusion-3", "SD3"), ("flux", "Flux"),
    ("lumina", "Lumina"), ("hunyuan", "Hunyuan"), ("wan", "Wan"), ("qwen", "Qwen-Image"), ("chroma", "Chroma"),
)


def guess_base(layers: Mapping[str, Delta], metadata: Mapping[str, str]) -> str:
    """SD1, SD2, SDXL, SD3, Flux or another family, or unknown."""
    names = "\n".join(layers)
    for name, delta in layers.items():
        if name.startswith("unet_") and name.endswith("attn2_to_k") and len(delta.shape) > 1:
            if delta.shape[1] in _CONTEXT_WIDTHS:
                return _CONTEXT_WIDTHS[delta.shape[1]]
    for pattern, base in _LAYERS:
        if pattern.search(names):
            return base
    stated = (metadata.get(field, "").lower() for field in ("ss_base_model_version", "modelspec.architecture"))
    return next((base for text in stated for prefix, base in _STATED if text.startswith(prefix)), "unknown")
