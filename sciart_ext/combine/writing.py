"""A combination as a LoRA file that other programs load: kohya's names, safetensors, what it is in its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ..errors import SciArtError, shown
from ..lora.kohya_names import kohya_name
from ..whole_file import check_case, check_name, written_whole
from .choices import PRECISIONS
from .files import Combined
from .metadata import metadata_of

_DTYPES = dict(zip(PRECISIONS, (torch.float16, torch.float32)))


def check_target(path: Path, sources: Sequence[Path]) -> None:
    """Refuses a file that is none of ours to write, before any work is done."""
    if path.suffix.lower() != ".safetensors":
        raise SciArtError("out", f"{path.name}; accepted: a name that ends in .safetensors")
    if path.resolve() in [source.resolve() for source in sources]:
        raise SciArtError("out", f"{path} is one of the LoRAs that are combined; give another name")
    check_name(path.name, "out")
    check_case(path, "out")


def write_combined(combined: Combined, path: Path, precision: str = "fp16") -> None:
    """Writes the file; it appears whole or not at all. What is loaded of it at weight 1 is C.

    All layers have one rank and one alpha, narrow ones by directions of zeros: of several ranks and alphas diffusers
    loses some. Raises `SciArtError` for an unknown precision, or one that C's numbers are too large for.
    """
    if precision not in PRECISIONS:
        raise SciArtError("precision", f"{shown(precision)} is not known; accepted: {', '.join(PRECISIONS)}")
    tensors, rank = {}, max(layer.rank for layer in combined.layers.values())
    for name, layer in combined.layers.items():
        stem = kohya_name(name, combined.base == "SDXL")
        up, down = (part.to(_DTYPES[precision]) for part in (layer.reduced.up, layer.reduced.down))
        if not (torch.isfinite(up).all() and torch.isfinite(down).all()):
            raise SciArtError("precision", f"{name} holds numbers too large for {precision}; accepted: fp32")
        zeros = rank - layer.rank
        up, down = F.pad(up, (0, zeros)), F.pad(down, (0, 0, 0, zeros))
        if layer.kernel:
            up, down = up[:, :, None, None], down.view(rank, -1, *layer.kernel)
        tensors[f"{stem}.lora_up.weight"], tensors[f"{stem}.lora_down.weight"] = up.contiguous(), down.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(float(rank), dtype=_DTYPES[precision])
    metadata = metadata_of(tensors, combined.base, path.stem, rank, combined.as_data(), combined.names)
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata)
