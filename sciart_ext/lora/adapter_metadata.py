"""The scales of an adapter's layers, from what PEFT and diffusers keep of it: alpha, and where it differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SciArtError, quoted
from .adapter_config import parts_of
from .keys import split_key
from .pattern import TEST, Budget, Pattern
from .pattern_notation import PatternError, is_plain

MOST_PATTERNS = 50
"""keys that are more than names"""
STEPS = 1_000_000
"""of all patterns of a file together (`Budget`)"""
LARGEST_RANK = 10.0**9
"""LyCORIS takes a rank that no layer has for a whole matrix"""


def apply_adapter_metadata(path: Path, config: Mapping, grouped: Mapping[str, dict[str, Tensor]],
                           keys: Mapping[str, str]) -> None:
    """Gives each layer the scale that PEFT computes with: α/r, or α/√r for rsLoRA (arXiv 2312.03732).

    config: of `adapter_config`; grouped: a layer's tensors by their parts, to which `scale` is added; keys: one of each
    layer's in the file, whose name for it alpha_pattern and rank_pattern speak of.
    """
    budget = Budget(STEPS)
    for part, prefix, own in parts_of(config):
        alphas, ranks = (_Table(path, own, f"{name}_pattern", part, budget) for name in ("alpha", "rank"))
        # LoHa and LoKr call it alpha
        default = _number(path, own, "lora_alpha" if "lora_alpha" in own else "alpha", part)
        if default is None and not alphas.values:
            continue
        for layer, parts in grouped.items():
            if not layer.startswith(prefix) or {"alpha", "scale"} & parts.keys():
                continue
            module = (split_key(keys[layer]) or (keys[layer],))[0]
            alpha = alphas.of(module, default)
            rank = _rank(parts) or _sane_rank(path, ranks.of(module, _number(path, own, "r", part)), part)
            if alpha is not None and rank and (_rank(parts) or "lokr_w1" in parts):
                parts["scale"] = torch.tensor(alpha / (rank**0.5 if own.get("use_rslora") else rank),
                                              dtype=torch.float64)


def _number(path: Path, config: Mapping, field: str, part: str) -> float | None:
    value = config.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SciArtError(path.name, f"{part}{quoted(field)} is {quoted(repr(value))}, not a number")
    return float(value)


def _sane_rank(path: Path, rank: float | None, part: str) -> float | None:
    if rank is not None and not 1 <= rank <= LARGEST_RANK:
        raise SciArtError(path.name, f"{part}r is {rank!r}; accepted: at least 1")
    return rank


class _Table:
    """Numbers by the layers' names, `alpha_pattern` or `rank_pattern`, by PEFT's own rule: the first key counts that
    matches the end of a module's dotted name."""

    def __init__(self, path: Path, config: Mapping, field: str, part: str, budget: Budget):
        table = config.get(field) or {}
        self._path, self._field, self._budget = path, f"{part}{field}", budget
        if not isinstance(table, dict):
            raise SciArtError(path.name, f"{self._field} is {quoted(repr(table))}, not a table of numbers")
        self.values = [_number(path, table, key, f"{self._field}: ") for key in table]
        self._plain = {key: number for number, key in enumerate(table) if is_plain(key)}
        self._dots = max((key.count(".") for key in self._plain), default=-1)
        others = [(number, key) for number, key in enumerate(table) if key not in self._plain]
        if len(others) > MOST_PATTERNS:
            raise SciArtError(path.name, f"{self._field} has {len(others)} patterns; at most {MOST_PATTERNS} are "
                                         "accepted")
        self._patterns = [(number, self._read(key)) for number, key in others]

    def _read(self, key: str) -> Pattern:
        try:
            return Pattern(key, self._budget)
        except PatternError as error:
            raise SciArtError(self._path.name, f"{self._field} has a key that is no pattern: {quoted(key)}: {error}"
                              ) from None

    def of(self, module: str, default: float | None) -> float | None:
        first = len(self.values)
        try:
            for end in _ends(module, self._dots):
                self._budget.spend(TEST)
                first = min(first, self._plain.get(end, first))
            for number, pattern in self._patterns:
                if number < first and pattern.matches_end_of(module):
                    first = number
                    break
        except PatternError as error:
            raise SciArtError(self._path.name, f"{self._field} {error}") from None
        return self.values[first] if first < len(self.values) else default


def _ends(module: str, dots: int) -> Iterator[str]:
    """What follows the dots of a dotted name, up to so many dots, and, where it has no more, the whole."""
    start = len(module)
    for _ in range(dots + 1):
        start = module.rfind(".", 0, start)
        yield module[start + 1:]
        if start < 0:
            return


def _rank(parts: Mapping[str, Tensor]) -> int | None:
    """The rank of a layer's factors; None where it has none."""
    names = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
    return next((parts[name].shape[:1].numel() for name in names if name in parts), None)
