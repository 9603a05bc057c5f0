"""A LoRA file, loaded: its deltas by canonical layer name, and a report of what it is."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import SciArtError
from .kinds import LowRank, low_rank, name_foreign
from .names import parse_key
from .reading import DTYPES, read_header, read_tensors

_CONTEXT_WIDTHS = {768: "SD1", 1024: "SD2", 2048: "SDXL"}
_METADATA_BASES = {"sdxl": "SDXL", "sd_v2": "SD2", "sd_v1": "SD1"}


@dataclass(frozen=True)
class LoraFile:
    """One LoRA: `layers` maps canonical layer names to deltas."""

    name: str
    path: Path
    kind: str
    base: str
    layers: dict[str, LowRank]

    @property
    def nbytes(self) -> int:
        """Bytes of all factors."""
        return sum(m.numel() * m.element_size() for delta in self.layers.values() for m in (delta.down, delta.up))

    def report(self) -> dict:
        """What the file is: kind, base model, ranks, number of layers in the UNet and the text encoders."""
        ranks = Counter(delta.rank for delta in self.layers.values())
        return {
            "name": self.name, "file": self.path.name, "kind": self.kind, "base": self.base,
            "rank": max(ranks), "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
            "unet_layers": sum(name.startswith("unet_") for name in self.layers),
            "text_encoder_layers": sum(name.startswith("te") for name in self.layers),
            "megabytes": round(self.nbytes / 2**20, 2),
        }


def load_lora(path: Path, name: str | None = None) -> LoraFile:
    """Reads a LoRA file of kind LoRA or LoCon, from kohya, diffusers or PEFT. Raises `SciArtError` for others."""
    path = Path(path)
    return _assemble(path, name, *read_tensors(path))


def inspect_lora(path: Path, name: str | None = None) -> dict:
    """The report of a file; of a safetensors file only the header is read, so that long lists are quick."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        return load_lora(path, name).report()
    header = read_header(path)
    metadata = header.pop("__metadata__", {})
    shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
    # Numbers (alpha) do not matter to the report: zero stands for them, and matrices have no data at all.
    tensors = {key: torch.zeros(shape) if shape in ((), (1,)) else
               torch.empty(shape, device="meta", dtype=DTYPES[header[key]["dtype"]]) for key, shape in shapes.items()}
    return _assemble(path, name, tensors, metadata).report()


def _assemble(path: Path, name: str | None, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> LoraFile:
    grouped: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        parsed = parse_key(key)
        if parsed is None:
            unknown.append(key)
        elif parsed.part in grouped.setdefault(parsed.layer, {}):
            raise SciArtError(path.name, f"{key}: {parsed.layer} occurs twice under different names")
        else:
            grouped[parsed.layer][parsed.part] = tensor
    if unknown:
        kind = name_foreign(unknown)
        known = "supported are LoRA and LoCon from kohya, diffusers and PEFT"
        what = f"{kind} is not supported; {known}" if kind else f"unknown key {unknown[0]!r}; {known}"
        raise SciArtError(path.name, what + (f" ({len(unknown)} such keys)" if len(unknown) > 1 else ""))
    _apply_adapter_metadata(path, metadata, grouped)
    layers = {layer: low_rank(path.name, layer, parts) for layer, parts in grouped.items()}
    kernels = any(delta.down.dim() == 4 and tuple(delta.down.shape[2:]) != (1, 1) for delta in layers.values())
    return LoraFile(name or path.stem, path, "LoCon" if kernels else "LoRA", guess_base(layers, metadata), layers)


def guess_base(layers: dict[str, LowRank], metadata: dict[str, str]) -> str:
    """The base model a LoRA fits: SD1, SD2, SDXL, or unknown; from its shapes, then from its metadata."""
    if any(layer.startswith("te2_") for layer in layers):
        return "SDXL"
    for layer, delta in layers.items():
        if layer.startswith("unet_") and layer.endswith("attn2_to_k"):
            width = delta.down.shape[1]
            if width in _CONTEXT_WIDTHS:
                return _CONTEXT_WIDTHS[width]
    version = metadata.get("ss_base_model_version", "")
    return next((base for prefix, base in _METADATA_BASES.items() if version.startswith(prefix)), "unknown")


def _apply_adapter_metadata(path: Path, metadata: dict[str, str], grouped: dict[str, dict]) -> None:
    """PEFT keeps alpha in the header, not among the tensors: α/r, or α/√r for rsLoRA (arXiv 2312.03732).

    Files of one model part alone (diffusers' `save_lora_adapter`) write it without the part's name; PEFT itself
    keeps it in `adapter_config.json` beside `adapter_model.safetensors`.
    """
    beside = path.parent / "adapter_config.json"
    if "lora_adapter_metadata" in metadata:
        source, text = "lora_adapter_metadata", metadata["lora_adapter_metadata"]
    elif path.stem == "adapter_model" and beside.is_file():
        source, text = beside.name, beside.read_text(encoding="utf-8")
    else:
        return
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise SciArtError(path.name, f"{source} is not a JSON object")
    for part, prefix in (("unet.", "unet_"), ("text_encoder.", "te1_"), ("text_encoder_2.", "te2_"), ("", "")):
        own = {key[len(part):]: value for key, value in config.items() if key.startswith(part)}
        if own.get("rank_pattern") or own.get("alpha_pattern"):
            raise SciArtError(path.name, f"{part}*: rank and alpha patterns of PEFT are not supported")
        if "lora_alpha" not in own:
            continue
        alpha = own["lora_alpha"]
        if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
            raise SciArtError(path.name, f"{part}lora_alpha is {alpha!r}, not a number")
        for layer, parts in grouped.items():
            if layer.startswith(prefix) and "down" in parts and not {"alpha", "scale"} & parts.keys():
                rank = parts["down"].shape[:1].numel()
                parts["alpha"] = torch.tensor(float(alpha) * (rank**0.5 if own.get("use_rslora") else 1.0))
