"""A LoRA file, loaded: its deltas by canonical layer name, and a report of what it is."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import SciArtError, quoted
from ..memory import is_out_of_memory
from .adapter_config import adapter_config, check_decomposed
from .adapter_metadata import apply_adapter_metadata
from .base_model import guess_base
from .foreign import KNOWN, name_foreign, name_tuner
from .keys import Key, layer_within, parse_key, split_key
from .kinds import BIAS, Delta, kind_of, read_layer
from .names import layer_name
from .opened import check_read, fingerprint
from .reading import SAFETENSORS, read_tensors
from .safetensors_file import read_safetensors

_EMBEDDING = "bundle_emb."
SMALL = 4 * 2**20
MAX_LAYERS = 3000
"""SDXL has half as many"""


@dataclass(frozen=True)
class LoraFile:
    """One LoRA: `layers` maps canonical layer names to deltas, `NAME.bias` to those of biases. `embeddings`: vectors
    (tokens, width) of textual inversions bundled with it, by their word and then by what the file calls them
    (`string_to_param.*`; SDXL: `clip_l`, `clip_g`). `strays`: keys of what is of no layer, and is left out."""

    name: str
    path: Path
    kind: str
    base: str
    layers: dict[str, Delta]
    embeddings: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    strays: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is in memory of it."""
        return sum(m.numel() * m.element_size() for delta in self.layers.values() for m in delta.tensors)

    def report(self) -> dict:
        """What the file is: kind, base model, ranks (of what has one), number of layers in the UNet and the text
        encoders, words of bundled embeddings, notes on what cannot act."""
        ranks = Counter(delta.rank for name, delta in self.layers.items() if delta.rank)
        reached = {name[:-len(BIAS)] if name.endswith(BIAS) else name for name in self.layers}
        return {
            "name": self.name, "file": self.path.name, "kind": self.kind, "base": self.base,
            "rank": max(ranks, default=0), "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
            "unet_layers": sum(name.startswith("unet_") for name in reached),
            "text_encoder_layers": sum(name.startswith("te") for name in reached),
            "megabytes": round(self.nbytes / 2**20, 2),
            **({"embeddings": sorted(self.embeddings)} if self.embeddings else {}),
            **({"notes": self.notes()} if self.strays else {}),
        }

    def notes(self) -> list[str]:
        """What of the file cannot act on any model."""
        if not self.strays:
            return []
        first = quoted(self.strays[0])
        if len(self.strays) == 1:
            return [f"{self.name}: {first} belongs to no layer and was left out"]
        return [f"{self.name}: {len(self.strays)} tensors belong to no layer and were left out (first: {first})"]


def load_lora(path: Path, name: str | None = None) -> LoraFile:
    """Reads a LoRA file from kohya, LyCORIS, diffusers or PEFT. Raises `SciArtError` for what is none."""
    path = Path(path)
    with _refusing(path), _without_collector():
        return _assemble(path, name, *read_tensors(path))


def inspect_lora(path: Path, name: str | None = None) -> dict:
    """The report of a file, as `outline_lora` reads it. Raises `SciArtError` as `load_lora` does."""
    return outline_lora(path, name).report()


def outline_lora(path: Path, name: str | None = None) -> LoraFile:
    """A file's layers and their shapes.

    Of a safetensors file of more than `SMALL` bytes only the header and the single numbers are read, so that long lists
    are quick: its layers have no data, and NaN in a matrix is found when it is loaded.
    """
    path = Path(path)
    if path.suffix.lower() != SAFETENSORS or fingerprint(path)[-1] <= SMALL:
        return load_lora(path, name)
    with _refusing(path), _without_collector():
        return _assemble(path, name, *read_safetensors(path, outline=True))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Where the reading of a file ends: in what it holds, or in a `SciArtError`."""
    try:
        yield
    except SciArtError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = quoted(str(error).partition("\n")[0])
        raise SciArtError(path.name, f"cannot be read: {type(error).__name__} {reason}") from error


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python looks for cycles again and again while thousands of tensors are made, of which none is in one: that would
    take as long as all the rest. Of several threads the first that had it on has it on again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _assemble(path: Path, name: str | None, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> LoraFile:
    config = adapter_config(path, metadata, tensors)
    embeddings = _take_embeddings(path, tensors)
    grouped: dict[str, dict[str, torch.Tensor]] = {}
    keys: dict[str, str] = {}
    unknown = []
    for key, tensor in tensors.items():
        parsed = parse_key(key) or _scaling_of_ia3(key, tensors)
        if parsed is None:
            unknown.append(key)
            continue
        check_read(path, key, tensor)
        if parsed.part in grouped.setdefault(parsed.layer, {}):
            raise SciArtError(path.name, f"{quoted(key)}: {quoted(parsed.layer)} occurs twice under different names")
        grouped[parsed.layer][parsed.part] = tensor
        keys[parsed.layer] = key
        if len(grouped) > MAX_LAYERS:
            raise SciArtError(path.name, f"has more than {MAX_LAYERS} layers")
    _check_unknown(path, unknown, grouped, tensors, metadata)
    if not grouped:
        raise SciArtError(path.name, "holds embeddings alone; put it among the embeddings")
    check_decomposed(path, config, grouped)
    apply_adapter_metadata(path, config, grouped, keys)
    layers = {layer + ending: delta for layer, parts in grouped.items()
              for ending, delta in read_layer(path.name, layer, parts).items()}
    return LoraFile(name or path.stem, path, kind_of(layers), guess_base(layers, metadata), layers, embeddings,
                    tuple(unknown))


def _check_unknown(path: Path, unknown: list[str], layers: Collection[str], tensors: Mapping[str, torch.Tensor],
                   metadata: Mapping[str, str]) -> None:
    """Refuses a file in which keys of no known form tell that it is something else, or are of its layers, which would
    then act otherwise than they should. Others, a counter or a third text encoder, do no harm."""
    told = name_foreign({key: tuple(tensor.shape) for key, tensor in tensors.items()}, metadata) or name_tuner(unknown)
    if told:
        raise SciArtError(path.name, told)
    has_unet = any(layer.startswith("unet_") for layer in layers)
    harmful = next((key for key in unknown if layer_within(key) or not layers or (split_key(key) and not has_unet)),
                   None)
    if harmful is not None:
        several = f" ({len(unknown)} such keys)" if len(unknown) > 1 else ""
        raise SciArtError(path.name, f"unknown key {quoted(repr(harmful))}; supported are {KNOWN}{several}")


def _take_embeddings(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Takes `bundle_emb.WORD.PART` out of the tensors, but for OneTrainer's vectors of a text encoder's output."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key in [key for key in tensors if key.startswith(_EMBEDDING) and not key.endswith("_out")]:
        word, _, part = key[len(_EMBEDDING):].partition(".")
        vectors = tensors.pop(key)
        if not word or not part or vectors.dim() != 2 or 0 in vectors.shape:
            raise SciArtError(path.name, f"{quoted(key)} has shape {tuple(vectors.shape)}; a bundled embedding is "
                                         "bundle_emb.WORD.PART with two dimensions")
        found.setdefault(word, {})[part] = vectors
    for word, parts in found.items():
        if len(parts) > 1 and parts.keys() != {"clip_l", "clip_g"}:
            raise SciArtError(path.name, f"the embedding {word!r} has {', '.join(sorted(parts))}; accepted: one part, "
                                         "or clip_l and clip_g")
    return found


def _scaling_of_ia3(key: str, tensors: Mapping[str, torch.Tensor]) -> Key | None:
    """IA3's `NAME.weight`, which is one only beside `NAME.on_input`: whole models have keys of this form too."""
    stem = key[:-len(".weight")]
    if not key.endswith(".weight") or f"{stem}.on_input" not in tensors:
        return None
    layer = layer_name(stem)
    return Key(layer, "scaling") if layer else None
