"""The host's LoRAs compared."""

from __future__ import annotations

from collections.abc import Sequence

from ....geometry.comparison import Comparison, compare
from ....lora.file import load_lora
from ..model import lora_files


def compared(names: Sequence[str], weights: Sequence[float] | None = None) -> Comparison:
    """The geometry of LoRAs by name or alias. Raises `SciArtError` where one is not found or cannot be compared."""
    paths = [lora_files.find(name, f"loras[{i}]") for i, name in enumerate(names)]
    return compare([load_lora(path, name) for path, name in zip(paths, names)], weights)
