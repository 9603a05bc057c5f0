"""What PEFT and diffusers keep of an adapter beside its tensors: alpha, and for which layers it differs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SciArtError

_PARTS_OF_MODEL = (("unet.", "unet_"), ("text_encoder.", "te1_"), ("text_encoder_2.", "te2_"), ("", ""))


def apply_adapter_metadata(path: Path, metadata: Mapping[str, str], grouped: Mapping[str, dict[str, Tensor]],
                           modules: Mapping[str, str]) -> None:
    """Gives each layer the scale that PEFT computes with: α/r, or α/√r for rsLoRA (arXiv 2312.03732).

    grouped: a layer's tensors by their parts, to which `scale` is added; modules: the layer's name in the file, which
    alpha_pattern and rank_pattern speak of. Files of one model part alone (diffusers' `save_lora_adapter`) write the
    configuration without the part's name; PEFT itself keeps it in `adapter_config.json` beside
    `adapter_model.safetensors`.
    """
    config = _configuration(path, metadata)
    for part, prefix in _PARTS_OF_MODEL:
        own = {key[len(part):]: value for key, value in config.items() if key.startswith(part)}
        alphas, ranks = (_pattern(path, own, f"{name}_pattern", part) for name in ("alpha", "rank"))
        # LoHa and LoKr call it alpha
        default = _number(path, own, "lora_alpha" if "lora_alpha" in own else "alpha", part)
        if default is None and not alphas:
            continue
        for layer, parts in grouped.items():
            if not layer.startswith(prefix) or {"alpha", "scale"} & parts.keys():
                continue
            alpha = _matching(alphas, modules[layer], default)
            rank = _rank(parts) or _matching(ranks, modules[layer], _number(path, own, "r", part))
            if alpha is not None and rank and (_rank(parts) or "lokr_w1" in parts):
                parts["scale"] = torch.tensor(alpha / (rank**0.5 if own.get("use_rslora") else rank),
                                              dtype=torch.float64)


def _configuration(path: Path, metadata: Mapping[str, str]) -> dict:
    beside = path.parent / "adapter_config.json"
    if "lora_adapter_metadata" in metadata:
        source, read = "lora_adapter_metadata", lambda: metadata["lora_adapter_metadata"]
    elif path.stem == "adapter_model" and beside.is_file():
        source, read = beside.name, lambda: beside.read_text(encoding="utf-8")
    else:
        return {}
    try:
        config = json.loads(read())
    except OSError as error:
        raise SciArtError(path.name, f"{source} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise SciArtError(path.name, f"{source} is not a JSON object")
    return config


def _number(path: Path, config: Mapping, field: str, part: str) -> float | None:
    value = config.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SciArtError(path.name, f"{part}{field} is {value!r}, not a number")
    return float(value)


def _pattern(path: Path, config: Mapping, field: str, part: str) -> dict[re.Pattern, float]:
    """PEFT's own rule: the end of a module's dotted name matches the key."""
    table = config.get(field) or {}
    if not isinstance(table, dict):
        raise SciArtError(path.name, f"{part}{field} is {table!r}, not a table of numbers")
    try:
        return {re.compile(rf"(.*\.)?({key})"): _number(path, table, key, f"{part}{field}: ") for key in table}
    except re.error as error:
        raise SciArtError(path.name, f"{part}{field} has a key that is no pattern: {error}") from None


def _matching(patterns: Mapping[re.Pattern, float], module: str, default: float | None) -> float | None:
    return next((value for pattern, value in patterns.items() if pattern.fullmatch(module)), default)


def _rank(parts: Mapping[str, Tensor]) -> int | None:
    """The rank of a layer's factors; None where it has none."""
    names = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
    return next((parts[name].shape[:1].numel() for name in names if name in parts), None)
