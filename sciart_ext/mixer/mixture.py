"""LoRAs bound to a whole model: one mixer for its UNet and one for each of its text encoders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import SciArtError
from ..recipe.layer_factors import left_out
from .cost import ENCODING
from .fit import check_fit
from .mixer import Mixer
from .targets import Target

if TYPE_CHECKING:
    from ..lora.file import LoraFile
    from ..recipe import LoraEntry
    from ..recipe.combining import Combination


@dataclass(frozen=True)
class Part:
    """A part of a model that LoRAs reach: the module that is called, and its layers by canonical name."""

    root: nn.Module
    layers: dict[str, Target]


@dataclass(frozen=True)
class Mixture:
    """The mixers of one model. `notes` says what of the LoRAs found no layer; `embeddings` are those that come with
    the LoRAs, by word (`LoraFile.embeddings`; of equal words the first)."""

    unet: Mixer
    text_encoders: tuple[Mixer, ...]
    notes: tuple[str, ...]
    embeddings: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    @contextmanager
    def encoding(self, gates: Sequence[float]) -> Iterator[None]:
        """While it lasts the text encoders run with these gates, one per LoRA."""
        with ExitStack() as stack:
            if any(gates):
                for mixer in self.text_encoders:
                    mixer.choose(ENCODING)
                    stack.enter_context(mixer)
                    mixer.set_gates([gates])
            yield

    def keep(self, keeps: bool, ahead: bool = False) -> None:
        """Whether merged weights and factors stay on a GPU after a pass; ahead: whether the UNet's merged weights of
        the next step are made while a step runs."""
        for mixer in (self.unet, *self.text_encoders):
            mixer.keeps = keeps
        self.unet.merges_ahead = ahead

    def release(self) -> None:
        """Takes everything back and lets go of all merged weights."""
        for mixer in (self.unet, *self.text_encoders):
            mixer.release()


def all_layers(parts: Mapping[str, Part]) -> dict[str, Target]:
    """Every layer of a model that LoRAs can reach."""
    return {name: target for part in parts.values() for name, target in part.layers.items()}


def bind(parts: Mapping[str, Part], loras: Sequence[LoraFile], entries: Sequence[LoraEntry], model: str,
         execution: str = "auto", memory_limit: float | None = None,
         prime: Callable[[nn.Module], None] | None = None, device: torch.device | None = None,
         untouched: Callable[[Target], torch.Tensor] | None = None, combination: Combination | None = None,
         primed_for: Callable[[], Hashable] | None = None, masked: Collection[int] = ()) -> Mixture:
    """Binds LoRAs (one per recipe entry) to the parts `unet` and `te1`, `te2` of a model called `model`.

    memory_limit: bytes; prime, device, untouched, combination, primed_for: `Mixer`'s; masked: indices of LoRAs that
    have masks in the UNet. Raises `SciArtError` for a LoRA that does not fit, and where all is to be merged but the
    limit is too low for that.
    """
    notes = check_fit(loras, all_layers(parts), model)
    blocks = [entry.blocks for entry in entries]
    notes += [note for lora, one in zip(loras, blocks) for note in left_out(lora.name, lora.layers, one)]
    mixers = {name: Mixer(part.root, part.layers, loras, blocks if name == "unet" else (),
                          execution, memory_limit, prime, device, untouched, combination, primed_for,
                          masked if name == "unet" else ())
              for name, part in parts.items()}
    if execution == "merge" and memory_limit is not None:
        needed = max(mixer.touched_bytes() for mixer in mixers.values())
        if needed > memory_limit:
            raise SciArtError("memory_limit_mb", f"execution merge holds {needed / 2**20:.0f} MB of merged weights; "
                                                 "accepted: at least as much, or execution auto or branch")
    encoders = tuple(mixer for name, mixer in mixers.items() if name != "unet" and mixer.layer_names)
    embeddings = {word: parts for lora in reversed(loras) for word, parts in lora.embeddings.items()}
    return Mixture(mixers["unet"], encoders, tuple(notes), embeddings)
