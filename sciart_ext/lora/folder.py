"""Finding a LoRA's file by its name in a folder, which may have others in it, and links to others."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ..errors import SciArtError, did_you_mean, shown

LORA_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin", ".pth")


def find_lora(name: str, folder: Path | None) -> Path:
    """The file of a LoRA, which is named by a path, or in the LoRA folder by its own name or its path there."""
    path = Path(name)
    if path.suffix.lower() in LORA_SUFFIXES and os.path.isfile(path):
        return path
    if folder is None:
        raise SciArtError("loras", f"no LoRA {shown(name)}; give its folder, or a path to the file")
    folder = Path(folder)
    if not folder.is_dir():
        raise SciArtError("lora-dir", f"{folder}: no such folder")
    below = lora_below(name, folder)
    if below is not None:
        return below
    files = lora_files(folder)
    found = [path for path in files if name in (path.stem, path.name)]
    if len(found) > 1:
        raise SciArtError("loras", f"{shown(name)} is the name of {len(found)} files; name one of them as "
                                   f"{', '.join(shown(name_below(path, folder)) for path in found)}")
    if not found:
        raise SciArtError("loras", f"no LoRA {shown(name)}; {did_you_mean(name, [path.stem for path in files])}")
    return found[0]


def lora_files(folder: Path) -> list[Path]:
    """All LoRA files in a folder and below, also where a link leads elsewhere; each folder once."""
    files, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(real)
        files += [Path(place, name) for name in names if os.path.splitext(name)[1].lower() in LORA_SUFFIXES]
    return sorted(files)


def lora_below(name: str, folder: Path) -> Path | None:
    """The file that is named by its path below a folder, such as characters/kim, with its suffix or without; None where
    there is none, or the path leads out of the folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or any(part == ".." or ":" in part or "\0" in part for part in parts):
        return None
    path = folder.joinpath(*parts)
    candidates = [path] if path.suffix.lower() in LORA_SUFFIXES else []
    candidates += [path.with_name(path.name + suffix) for suffix in LORA_SUFFIXES]
    return next((one for one in candidates if os.path.isfile(one)), None)  # which is False for names that are too long


def name_below(path: Path, folder: Path) -> str:
    """How `lora_below` finds a file of a folder."""
    return path.relative_to(folder).with_suffix("").as_posix()
