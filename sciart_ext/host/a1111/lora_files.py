"""The host's LoRA files: what its built-in Lora extension calls them and where they are."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from modules import extra_networks, shared

from ...errors import SciArtError, did_you_mean, shown
from ...lora.folder import lora_below, name_below

MOST_NAMED = 10


def networks() -> ModuleType:
    """The built-in Lora extension's module."""
    try:
        return importlib.import_module("networks")
    except ImportError:
        raise SciArtError("loras", "the WebUI's built-in extension Lora is disabled; SciArt needs it") from None


def others_write_weights() -> bool:
    """Whether each forward of a layer may write other weights into it: the built-in extension's old way of applying its
    LoRAs, or the LyCORIS extension from before the built-in one read its files."""
    return shared.opts.lora_functional or "lyco" in extra_networks.extra_network_registry


def names() -> list[str]:
    """Names of all LoRAs the host knows, as it prefers to write them in prompts."""
    return sorted({entry.get_alias() for entry in networks().available_networks.values()}, key=str.lower)


def refresh() -> None:
    """Makes the host look for files again."""
    networks().list_available_networks()


def files() -> dict[str, Path]:
    """Name to file, of all LoRAs the host knows."""
    return {entry.get_alias(): Path(entry.filename) for entry in networks().available_networks.values()}


def find(name: str, field: str) -> Path:
    """The file of the LoRA that the host calls `name`, its file's name or its training name, as `<lora:name:1>` would
    find it; or that is named by its path below a Lora folder, such as characters/kim."""
    path = _find(name)
    if path is None or not path.is_file():
        refresh()
        path = _find(name)
    if path is None:
        same = sorted((entry.name for entry in networks().available_networks.values()
                       if entry.alias.lower() == name.lower()), key=str.lower)
        if len(same) > 1:
            raise SciArtError(field, f"{shown(name)} is the training name of {len(same)} files; name one of them by "
                                     f"its file: {', '.join(map(shown, same[:MOST_NAMED]))}")
        raise SciArtError(field, f"no LoRA {shown(name)}; {did_you_mean(name, names())}")
    return path


def unique_name(name: str) -> str:
    """What finds this LoRA's file, and no other, also when files with the same training name come to it later: its
    file's name, or its path below the Lora folder where another file has that name."""
    path = _find(name)
    if path is None or _find(path.stem) == path:
        return name if path is None else path.stem
    return next((name_below(path, folder) for folder in _folders() if folder in path.parents), name)


def preferred_name(name: str) -> str:
    """What the host calls this LoRA where it lists them, as the panel does; the same where there is none."""
    path = _find(name)
    return next((listed for listed, file in files().items() if file == path), name)


def hashes(loras: Iterable[str]) -> dict[str, str]:
    """Of the files of these LoRAs, by name: what the host writes into infotext of those of a prompt, by which
    galleries know them."""
    by_path = {Path(entry.filename): entry for entry in networks().available_networks.values()}
    found = {}
    for name in loras:
        entry = by_path.get(_find(name))
        if entry is not None:
            entry.read_hash()
            if entry.shorthash:
                found[name] = entry.shorthash
    return found


def _find(name: str) -> Path | None:
    module = networks()
    table = module.available_networks if name.lower() in module.forbidden_network_aliases \
        else module.available_network_aliases
    entry = table.get(name)
    if entry is not None:
        return Path(entry.filename)
    return next((path for path in (lora_below(name, folder) for folder in _folders()) if path is not None), None)


def _folders() -> list[Path]:
    """Where the host looks for LoRAs."""
    options = shared.cmd_opts
    return [Path(folder) for folder in (options.lora_dir, getattr(options, "lyco_dir_backcompat", None)) if folder]
