"""A mixture written into a copy of a model, one tensor in memory at a time; what is not changed is copied as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..combine.constants import constant_weights
from ..errors import SciArtError
from ..lora.file import LoraFile
from ..lora.kinds import BIAS
from ..lora.opened import opened
from ..mixer.fit import check_fit
from ..recipe import Recipe
from ..whole_file import NoRoomError, written_whole
from .changed import Mixed, ModelFile, tensors_of
from .checkpoint import Checkpoint, read_checkpoint
from .places import files_of, ldm_places, outlined, part_places

METADATA_KEY = "sciart_baked"
_NO_LONGER_TRUE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


@dataclass(frozen=True)
class Baked:
    """What was written: how many of the tensors changed, and what the user should know."""

    path: Path
    changed: int
    tensors: int
    notes: tuple[str, ...]


def bake(model: Path, out: Path, recipe: Recipe, loras: Sequence[LoraFile],
         on_tensor: Callable[[int, int], None] | None = None) -> Baked:
    """Writes a copy of a model, a safetensors checkpoint or a diffusers folder, with the recipe's mixture in it.

    loras: the recipe's, in the same order; on_tensor(done, all) reports progress. What is written appears whole or not
    at all. Raises `SciArtError` for weights that a file cannot hold, LoRAs that do not fit, and a place that is none to
    write to.
    """
    mixed = _mixed(recipe, loras)
    check_out(model, out, loras)
    files = _files(model)
    notes = _fitting(mixed, files, model)
    _check_room(model, out)
    count = sum(len(file.checkpoint.tensors) for file in files)
    done = changed = 0

    def copy(file: ModelFile, path: Path) -> None:
        nonlocal done, changed
        head = file.checkpoint.header(_metadata(file.checkpoint, mixed, model))
        with opened(file.checkpoint.path) as source:
            with written_whole(path) as temporary, temporary.open("wb") as written:
                written.write(head)
                for data in tensors_of(file, source, mixed):
                    if isinstance(data, torch.Tensor):
                        changed += 1
                        written.write(memoryview(data.contiguous().view(torch.uint8).numpy()))
                    else:
                        written.writelines(data)
                    done += 1
                    if on_tensor is not None:
                        on_tensor(done, count)

    if model.is_dir():
        with _whole_folder(model, out, [file.checkpoint.path for file in files]) as folder:
            for file in files:
                copy(file, folder / file.checkpoint.path.relative_to(model))
    else:
        copy(files[0], out)
    return Baked(out, changed, count, tuple(notes))


def check_out(model: Path, out: Path, loras: Sequence[LoraFile] = ()) -> None:
    """Refuses a place that is none of ours to write to: the original, however it is spelled or linked, and whatever is
    there already."""
    if model.is_dir():
        if out.suffix.lower() == ".safetensors":
            raise SciArtError("out", f"{out.name}; accepted for a diffusers folder: the name of a new folder")
        if out.resolve().is_relative_to(model.resolve()):
            raise SciArtError("out", f"{out} is in the model itself; accepted: another place")
    elif out.suffix.lower() != ".safetensors":
        raise SciArtError("out", f"{out.name}; accepted: a name that ends in .safetensors")
    for own in (model, *(lora.path for lora in loras)):
        if out.resolve() == own.resolve() or (out.exists() and own.exists() and out.samefile(own)):
            raise SciArtError("out", f"{out} is {own.name} itself; accepted: another name")
    if os.path.lexists(out):
        raise SciArtError("out", f"{out} is there already; accepted: another name, or delete it first")


def _mixed(recipe: Recipe, loras: Sequence[LoraFile]) -> Mixed:
    acting = [(lora, weight) for lora, weight in zip(loras, constant_weights(recipe)) if weight.acts]
    if not acting:
        raise SciArtError("loras", "every weight is 0; nothing is left to bake")
    return Mixed(*map(tuple, zip(*acting)), recipe)


def _files(model: Path) -> list[ModelFile]:
    if model.is_dir():
        found = [(part, read_checkpoint(path)) for part, paths in files_of(model).items() for path in paths]
        return [ModelFile(checkpoint, part_places(checkpoint, part)) for part, checkpoint in found]
    if model.suffix.lower() != ".safetensors":
        raise SciArtError("model", f"{model.name}; accepted: a .safetensors checkpoint, or a diffusers folder")
    checkpoint = read_checkpoint(model)
    return [ModelFile(checkpoint, ldm_places(checkpoint))]


def _fitting(mixed: Mixed, files: Sequence[ModelFile], model: Path) -> list[str]:
    """Notes on what does not reach the model. Raises `SciArtError` where nothing of a LoRA does, or a part wrongly."""
    layers, without_bias = {}, set()
    for file in files:
        layers |= outlined(file.places, file.checkpoint)
        without_bias |= {name for name, place in file.places.items() if place.bias is None}
    notes = check_fit(mixed.loras, layers, model.stem)
    for lora in mixed.loras:
        for name, delta in lora.layers.items():
            stem = name.removesuffix(BIAS)
            # what is relative to a bias that is none is none
            if name != stem and stem in without_bias and mixed.acts_on(name) and not delta.needs_weight:
                raise SciArtError(lora.path.name, f"changes the bias of {stem}, which {model.stem} has not: a "
                                                  "checkpoint cannot hold it; mix it in a recipe instead")
        if lora.embeddings:
            notes.append(f"{lora.name}: the embeddings that come with it ({', '.join(sorted(lora.embeddings))}) are no "
                         "part of a checkpoint; keep the LoRA, or put them among the embeddings")
    if any(one.key.startswith("model_ema.") for file in files for one in file.checkpoint.tensors):
        notes.append("the second copy of the UNet in this checkpoint (model_ema) stays as it was; programs that draw "
                     "with it draw without the LoRAs")
    return notes


def _metadata(checkpoint: Checkpoint, mixed: Mixed, model: Path) -> dict[str, str]:
    """What the original says of itself, without what is no longer true, and what was baked, now and before."""
    kept = {key: value for key, value in checkpoint.metadata.items() if key not in _NO_LONGER_TRUE}
    before = kept.get(METADATA_KEY)
    try:
        told = json.loads(before) if before else []
    except ValueError:
        told = []
    told = [*(told if isinstance(told, list) else []), mixed.as_data(model.name)]
    return {**kept, METADATA_KEY: json.dumps(told, ensure_ascii=False)}


def _check_room(model: Path, out: Path) -> None:
    """Before minutes of work: that the disk has room for a copy."""
    size = sum(path.stat().st_size for path in (model.rglob("*") if model.is_dir() else [model]) if path.is_file())
    folder = next(folder for folder in out.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < size:
        raise NoRoomError("out", f"the copy takes {size / 2**20:.0f} MB, {folder} has {free / 2**20:.0f} MB left; "
                                 "accepted: more room on the disk, or another place")


@contextmanager
def _whole_folder(model: Path, out: Path, baked: Sequence[Path]) -> Iterator[Path]:
    """A copy of the model's folder beside `out`, without the files that are baked, which becomes `out` at the end."""
    temporary = out.with_name(f".{out.name}.sciart.tmp")
    left = {path.relative_to(model) for path in baked} | {
        path.relative_to(model) for part in {path.parent for path in baked} for path in part.glob("*.bin")}

    def leave_out(folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(model)
        return {name for name in names if place / name in left or (place == Path() and name == "loras")}

    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(model, temporary, ignore=leave_out)
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        raise SciArtError("out", f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


