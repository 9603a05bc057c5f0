"""The host's LoRA files: what its built-in Lora extension calls them and where they are."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from modules import extra_networks, shared

from ....errors import SciArtError, did_you_mean, shown


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
    """The file of the LoRA that the host calls `name` (its name or alias), as `<lora:name:1>` would find it."""
    path = _find(name)
    if path is None or not path.is_file():
        refresh()
        path = _find(name)
    if path is None:
        raise SciArtError(field, f"no LoRA {shown(name)}; {did_you_mean(name, names())}")
    return path


def _find(name: str) -> Path | None:
    module = networks()
    table = module.available_networks if name.lower() in module.forbidden_network_aliases \
        else module.available_network_aliases
    entry = table.get(name)
    return Path(entry.filename) if entry is not None else None
