"""A LoRA file's keys, taken apart: of which layer a tensor is, and what it is to it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .names import layer_name


class Key(NamedTuple):
    """A file's key, taken apart: canonical layer name and what the tensor is to it (`down`, `up`, `alpha`, …)."""

    layer: str
    part: str


_FACTORS = {
    "down": (".lora_down", ".lora_A", ".lora.down", ".lora_linear_layer.down", "_lora.down"),
    "up": (".lora_up", ".lora_B", ".lora.up", ".lora_linear_layer.up", "_lora.up"),
    "mid": (".lora_mid",), **{part: (f".{part}",) for part in ("a1", "a2", "b1", "b2")},
}
_PLAIN = ("alpha", "scale", "dora_scale", "oft_blocks", "oft_diag", "rescale", "on_input", "diff", "diff_b", "w_norm",
          "b_norm")
_OF_PEFT = {
    "lora_magnitude_vector": "magnitude", "ia3_l": "ia3",
    **{part: part for part in (*(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
                               *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")))},
}
"""names after which PEFT writes that of the adapter, unless it saved one alone"""
_OF_ADAPTERS = {(name, ""): part for name, part in _OF_PEFT.items()} | {
    ("lora_A", ".weight"): "down", ("lora_B", ".weight"): "up", ("lora_B", ".bias"): "up_bias",
    ("lora_magnitude_vector", ".weight"): "magnitude"}
_PARTS = {
    **{f"{name}.weight": part for part, names in _FACTORS.items() for name in names},
    **{f"{name}.bias": "up_bias" for name in (".lora_up", ".lora_B", ".lora.up")},
    **{f".{part}": part for part in _PLAIN}, ".bias.diff": "diff_b",
    **{f".{name}{ending}": part for (name, ending), part in _OF_ADAPTERS.items()},
}
"""what a key ends with, after the layer's name"""
_MOST_DOTS = max(ending.count(".") for ending in _PARTS)
_UNDERSCORED = tuple(ending for ending in _PARTS if ending[0] == "_")

_KEPT = 2**13  # keys taken apart: many files have the same ones


@lru_cache(_KEPT)
def parse_key(key: str) -> Key | None:
    """The canonical layer and part of a LoRA file's key; None for a key of no known form."""
    stem, part = split_key(key) or ("", "")
    layer = layer_name(stem)
    return Key(layer, part) if layer else None


def split_key(key: str) -> tuple[str, str] | None:
    """The layer's name as the file writes it, and the part; None for a key of no known form."""
    if "\n" in key:
        return None
    if key.endswith(_UNDERSCORED):
        start = key.rindex("_lora.")
        return (key[:start], _PARTS[key[start:]]) if start else None
    found, start = None, len(key)
    for _ in range(_MOST_DOTS):
        start = key.rfind(".", 0, max(start, 0))
        if start > 0 and key[start:] in _PARTS:
            found = key[:start], _PARTS[key[start:]]
    return found or _split_adapter(key)


def _split_adapter(key: str) -> tuple[str, str] | None:
    """The same of `LAYER.lora_A.ADAPTER.weight`, `LAYER.hada_w1_a.ADAPTER`, as PEFT has them in a model."""
    ending = next((one for one in (".weight", ".bias") if key.endswith(one)), "")
    layer, dot, _ = key[:len(key) - len(ending)].rpartition(".")
    stem, _, name = layer.rpartition(".")
    part = _OF_ADAPTERS.get((name, ending)) if dot else None
    return (stem, part) if stem and part else None


def layer_within(key: str) -> str | None:
    """The layer that a key of no known form is of, because its name begins with that of a layer; None for others."""
    stem = key
    while "." in stem:
        stem = stem.rpartition(".")[0]
        layer = layer_name(stem)
        if layer:
            return layer
    return None
