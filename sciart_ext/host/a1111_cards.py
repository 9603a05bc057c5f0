"""What the panel tells of each LoRA file: what it is, and whether it fits the loaded model."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

from modules import sd_models
from torch import nn

from ..errors import SciArtError
from ..lora.file import outline_lora
from ..mixer.fit import check_fit
from ..mixer.mixture import all_layers
from ..mixer.targets import Target
from . import a1111_networks
from .a1111_model import model_name, model_parts
from .a1111_session import fingerprint

_TOLD = ("name", "file", "kind", "rank", "base", "error")


class Cards:
    """Cards of files, kept until the file changes or another model is loaded."""

    def __init__(self) -> None:
        self._model: weakref.ref | None = None
        self._cards: dict[tuple[str, int, int], dict] = {}

    def model(self) -> str:
        """The loaded model's name; empty where none is loaded, for none is loaded only to tell this."""
        loaded = sd_models.model_data.sd_model
        return model_name(loaded) if loaded is not None else ""

    def all(self) -> list[dict]:
        """A card for each LoRA of the host, in the order of their names."""
        layers, name = self._layers_of(sd_models.model_data.sd_model), self.model()
        found = sorted(a1111_networks.files().items(), key=lambda item: item[0].lower())
        cards = {fingerprint(path): (path, alias) for alias, path in found}
        self._cards = {key: self._cards.get(key) or _card(*file, layers, name) for key, file in cards.items()}
        return [{**self._cards[fingerprint(path)], "name": alias} for alias, path in found]

    def _layers_of(self, model: nn.Module | None) -> Mapping[str, Target] | None:
        """None where no model is loaded, or one that is not mixed."""
        if self._model is None or self._model() is not model:
            self._cards.clear()
            self._model = weakref.ref(model) if model is not None else None
        if model is None:
            return None
        try:
            return all_layers(model_parts(model))
        except SciArtError:  # a picture says so: SD3 and others
            return None


def _card(path: Path, name: str, layers: Mapping[str, Target] | None, model: str) -> dict:
    size = path.stat().st_size
    try:
        outline = outline_lora(path, name)
    except SciArtError as error:
        return {"file": path.name, "bytes": size, "error": str(error)}
    report = outline.report()
    card = {**{key: report[key] for key in _TOLD if key in report}, "bytes": size, "fits": None, "fit_note": ""}
    if layers is None:
        return card
    try:
        return {**card, "fits": True, "fit_note": "; ".join(check_fit([outline], layers, model))}
    except SciArtError as error:
        return {**card, "fits": False, "fit_note": str(error)}


cards = Cards()
