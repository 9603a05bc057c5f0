"""What the panel tells of each LoRA file of the host: what it is, and whether it fits the loaded model."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping

from modules import sd_models
from torch import nn

from ....errors import SciArtError
from ....mixer.cards import Cards
from ....mixer.mixture import all_layers
from ....mixer.targets import Target
from .. import lora_files
from ..model.parts import model_name, model_parts

SECONDS = 0.4
"""for reading files, of one question of the panel; it asks again for the others"""


class HostCards:
    """Cards of the host's files, kept until the file changes or another model is loaded."""

    def __init__(self) -> None:
        self._model: weakref.ref | None = None
        self._cards = Cards()

    def model(self) -> str:
        """The loaded model's name; empty where none is loaded, for none is loaded only to tell this."""
        loaded = sd_models.model_data.sd_model
        return model_name(loaded) if loaded is not None else ""

    def all(self, first: Iterable[str] = ()) -> list[dict]:
        """A card for each LoRA of the host, in the order of their names; those called `first` are read first."""
        layers = self._layers_of(sd_models.model_data.sd_model)
        return self._cards.told(lora_files.files(), layers, self.model(), SECONDS, first)

    def _layers_of(self, model: nn.Module | None) -> Mapping[str, Target] | None:
        """None where no model is loaded, or one that is not mixed."""
        if self._model is None or self._model() is not model:
            self._cards.forget()
            self._model = weakref.ref(model) if model is not None else None
        if model is None:
            return None
        try:
            return all_layers(model_parts(model))
        except SciArtError:  # a picture says so: SD3 and others
            return None


cards = HostCards()
