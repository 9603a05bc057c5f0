"""What is kept between pictures: LoRAs bound to the loaded models, so that the next picture starts at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modules import devices, shared
from torch import nn

from ....errors import SciArtError
from ....lora.file import LoraFile, inspect_lora, load_lora
from ....lora.opened import fingerprint
from ....mixer.mixture import Mixture, bind
from ....recipe import Recipe
from .. import lora_files
from ..settings import merges_ahead, stays_on_gpu
from .parts import loaded_networks, model_name, model_parts, untouched_weight, update_weights

MODELS_KEPT = 2


class Session:
    """Mixtures of the recipe used last, one per model (the checkpoint and perhaps its refiner)."""

    def __init__(self) -> None:
        self._mixtures: OrderedDict[tuple, Mixture] = OrderedDict()
        self._reports: dict[tuple[str, int, int], dict] = {}

    def mixture(self, sd_model: nn.Module, recipe: Recipe, masked: tuple[int, ...] = ()) -> Mixture:
        """The recipe's LoRAs bound to the model; read and bound anew only when one of them has changed. masked: indices
        of those that have masks."""
        paths = lora_paths(recipe)
        bound_to = (repr(recipe.combination), *((_of_file(path, i), repr(lora.blocks))
                                                for i, (path, lora) in enumerate(zip(paths, recipe.loras))))
        unet = sd_model.model.diffusion_model
        execution = "branch" if lora_files.others_write_weights() else recipe.execution  # only these survive
        key = (id(unet), bound_to, masked, execution, recipe.memory_limit_mb, sd_model.lowvram)
        if key in self._mixtures:
            self._mixtures.move_to_end(key)
            self._mixtures[key].keep(stays_on_gpu(), merges_ahead())
            return self._mixtures[key]
        for old, mixture in list(self._mixtures.items()):
            if old[1] != bound_to or next(mixture.unet.root.parameters()).is_meta:  # thrown away by the host
                del self._mixtures[old]
        loras = [_load(path, lora.name, i) for i, (path, lora) in enumerate(zip(paths, recipe.loras))]
        mixture = bind(model_parts(sd_model), loras, recipe.loras, model_name(sd_model), execution,
                       recipe.memory_limit, update_weights, devices.device, untouched_weight, recipe.combination,
                       loaded_networks, masked)
        mixture.keep(stays_on_gpu(), merges_ahead())
        self._mixtures[key] = mixture
        while len(self._mixtures) > MODELS_KEPT:
            self._mixtures.popitem(last=False)
        return mixture

    def clear(self) -> None:
        """Lets go of all LoRAs."""
        for mixture in self._mixtures.values():
            mixture.release()
        self._mixtures.clear()

    def report(self, path: Path, name: str) -> dict:
        """What a LoRA file is; `error` in place of the rest where it cannot be mixed."""
        try:
            key = fingerprint(path)
        except SciArtError as error:  # it was deleted since the host looked
            return {"name": name, "file": path.name, "error": str(error)}
        if key not in self._reports:
            try:
                self._reports[key] = inspect_lora(path, name)
            except SciArtError as error:
                self._reports[key] = {"name": name, "file": path.name, "error": str(error)}
        return {**self._reports[key], "name": name}


def lora_paths(recipe: Recipe) -> list[Path]:
    """The files of a resolved recipe's LoRAs."""
    return [lora_files.find(lora.name, f"loras[{i}].name") for i, lora in enumerate(recipe.loras)]


def _load(path: Path, name: str, index: int) -> LoraFile:
    with _named(index):
        return load_lora(path, name)


def _of_file(path: Path, index: int) -> tuple[str, int, int]:
    with _named(index):
        return fingerprint(path)


@contextmanager
def _named(index: int) -> Iterator[None]:
    """What is wrong with a LoRA's file is told of the recipe's field."""
    try:
        yield
    except SciArtError as error:
        raise SciArtError(f"loras[{index}].name", str(error)) from None


session = Session()


def loaded_model() -> nn.Module:
    """The model the host has loaded now (after a hires or refiner switch: the new one)."""
    return shared.sd_model
