"""The kinds of LoRA files: what a layer's tensors mean, and the names of what is not supported yet.

A kind turns the parts of one layer into a `LowRank`. Other kinds (Tucker, LoHa, LoKr, DoRA, …) are recognised by
their keys, so that the error can say what the file is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..errors import SciArtError

MAX_RANK = 4096


class LowRank(NamedTuple):
    """One layer's delta, ΔW = scale · up · down.

    down: (rank, in) or, for a convolution, (rank, in, kh, kw); up: (out, rank) or (out, rank, 1, 1);
    scale: alpha / rank, 1 without alpha, or the file's own `.scale` (LoRA paper, arXiv 2106.09685, section 4.1).
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


# What other kinds leave in a key: checked in this order, the first that occurs names the file.
_FOREIGN = (
    ("model.diffusion_model.", "a whole checkpoint"), ("cond_stage_model.", "a whole checkpoint"),
    ("hada_w", "LoHa"), ("lokr_w", "LoKr"), ("lora_mid", "LoCon with Tucker decomposition"),
    ("dora_scale", "DoRA"), ("lora_magnitude_vector", "DoRA"), ("boft_", "BOFT"), ("oft_", "OFT"),
    (".on_input", "IA3"), (".a1.weight", "GLoRA"), ("w_norm", "norm differences"), ("b_norm", "norm differences"),
    (".diff", "full differences"), ("bundle_emb", "a bundled embedding"), ("double_blocks", "a Flux LoRA"),
    ("single_blocks", "a Flux LoRA"), ("joint_blocks", "an SD3 LoRA"), ("emb_params", "an embedding"),
    ("string_to_param", "an embedding"), ("lora_down.bias", "LoRA with biases"), ("lora_up.bias", "LoRA with biases"),
)


def name_foreign(keys: list[str]) -> str | None:
    """What kind of file these unknown keys belong to; None where nothing tells."""
    for mark, name in _FOREIGN:
        if any(mark in key for key in keys):
            return name
    return None


def low_rank(file: str, layer: str, parts: dict[str, torch.Tensor]) -> LowRank:
    """The delta of one layer from its parts `down`, `up` and perhaps `alpha` or `scale`."""
    for part in ("down", "up"):
        if part not in parts:
            raise SciArtError(file, f"{layer} has no {part} matrix; the file is incomplete")
    down, up = parts["down"], parts["up"]
    for name, matrix in (("down", down), ("up", up)):
        if matrix.dim() not in (2, 4) or 0 in matrix.shape:
            raise SciArtError(file, f"{layer}: {name} has shape {tuple(matrix.shape)}; accepted: 2 or 4 dimensions")
    if down.shape[0] != up.shape[1]:
        raise SciArtError(file, f"{layer}: down has rank {down.shape[0]}, up has rank {up.shape[1]}")
    if down.shape[0] > MAX_RANK:
        raise SciArtError(file, f"{layer}: rank {down.shape[0]}; at most {MAX_RANK} is accepted")
    if up.dim() == 4 and up.shape[2:] != (1, 1):
        raise SciArtError(file, f"{layer}: up has shape {tuple(up.shape)}; its kernel must be 1 × 1")
    for name in ("alpha", "scale"):
        if name in parts and parts[name].numel() != 1:
            raise SciArtError(file, f"{layer}: {name} has shape {tuple(parts[name].shape)}; accepted: one number")
    if "scale" in parts:
        scale = float(parts["scale"])
    else:
        scale = float(parts["alpha"]) / down.shape[0] if "alpha" in parts else 1.0
    return LowRank(down, up, scale)
