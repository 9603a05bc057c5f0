"""What a host gives the engine: each thing a protocol, whose docstring says what is promised.

A host is a program that samples. docs/extending.md builds a small one of these; `a1111/` is one in a WebUI, and
`sciart_ext/standalone/` one on diffusers, which needs no `HostWeights` and no `Refused`: its weights change by nobody
else, and its user is given a `SciArtError` as it is. A test compares all of them with what is written here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ..errors import SciArtError
from ..mixer.mixture import Part
from ..mixer.targets import Target
from ..recipe import Row


class ModelParts(Protocol):
    """Where the LoRAs act."""

    def __call__(self, model: Any, /) -> Mapping[str, Part]:
        """`unet`, `te1` and, of SDXL, `te2`: the module that is called, and its layers by their canonical names
        (`lora.names`).

        `Target.weight()` is the parameter wherever it is at the time of asking; where a model is moved part by part,
        `Target.bracket` is the part during whose calls it is where it is computed with. Raises `SciArtError`
        ("checkpoint") for a model that is not SD1, SD2 or SDXL.
        """


class HostWeights(Protocol):
    """Of a host that itself writes into the model's weights, as a WebUI's own LoRAs do: what `bind` is given as
    `prime`, `primed_for` and `untouched`."""

    def update_weights(self, module: nn.Module, /) -> None:
        """Has the host bring the weights of this module up to date now, and not within a call of it."""

    def loaded_networks(self) -> Hashable:
        """What the weights are brought up to: while this is equal, `update_weights` need not be called again."""

    def untouched_weight(self, target: Target, /) -> Tensor:
        """The weight as the checkpoint has it, whatever the host has written over it; on any device."""


class LoraFiles(Protocol):
    """The LoRA files that the user can name."""

    def names(self) -> list[str]:
        """As the user knows them, in alphabetical order, capitals or not."""

    def files(self) -> dict[str, Path]:
        """The file of each name."""

    def find(self, name: str, field: str) -> Path:
        """The file of a name; looks for new files before it raises `SciArtError`, with this field of the recipe."""

    def refresh(self) -> None:
        """Looks for files again."""


class Encoding(Protocol):
    """The prompts."""

    def __call__(self, row: Row, /) -> Any:
        """What the UNet's cross-attention reads in a row: its text (`guidance.words.row_prompt`), encoded within
        `Mixture.encoding` of the row's gates (`PassPlan.te_gates`); all rows with the prompt to one length."""


class Progress(Protocol):
    """The moment of an evaluation of the model."""

    def __call__(self, evaluation: int, sigma: Tensor, /) -> float:
        """0 in the first step to 1 in the last, the same in all evaluations of a step. evaluation: counted from 0 in
        this call of the sampler; sigma: its noise, by which an adaptive sampler tells how far it is."""


class SetGates(Protocol):
    """The rows of a call of the UNet, and whose they are."""

    def __call__(self, rows: Sequence[Row], progress: float, /) -> None:
        """The next call has these rows of every image: hands their gates (`PassPlan.gates`) to `Mixer.set_gates`, one
        for each row of the batch, in the order in which the host lays the batch out."""


class Denoised(Protocol):
    """The model without any subject's LoRA: what `Layout.look_ahead` calls."""

    def __call__(self, latents: Tensor, time: int, progress: float, /) -> Tensor:
        """latents (images, c, h, w), variance preserving, at a training time → the latents without noise that the
        plain rows, with CFG, make of them. Calls the UNet with the plain row of every image first."""


class PlainCall(Protocol):
    """The prompt's row of it alone, whose attention `Layout.look_ahead` looks at."""

    def __call__(self, latents: Tensor, time: int, progress: float, /) -> Any:
        """Of the same: calls the UNet with the plain row of every image, once. What comes out is not used."""


class GradientPass(Protocol):
    """The model with a gradient: what `Guide.update` calls."""

    def __call__(self, latents: Tensor, /) -> Any:
        """Calls the UNet with the plain row of every image on the model's input (images, c, h, w), which wants a
        gradient; nothing on the way may detach it. What comes out is not used."""


class Noise(Protocol):
    """What predictions say of the noise: what a `Fusion` compares."""

    def __call__(self, predictions: Tensor, /) -> Tensor:
        """The noise in the host's predictions (images, pairs, c, h, w), up to a factor that is the same for all."""


class Refused(Protocol):
    """How a refusal reaches the user."""

    def __call__(self, error: SciArtError, /) -> Exception:
        """The host's own form of it, to be raised; its field and its message are kept."""


class Note(Protocol):
    """What the user should know, and the infotext keeps."""

    def __call__(self, text: str, /) -> None:
        """Shows a note beside the picture, and keeps it under `recipe.NOTES_KEY` beside the recipe
        (`recipe.INFOTEXT_KEY`), once."""
