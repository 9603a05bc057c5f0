"""Finding a LoRA's file by its name."""

from __future__ import annotations

from pathlib import Path

from ..errors import SciArtError, did_you_mean

LORA_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin", ".pth")


def find_lora(name: str, folder: Path | None) -> Path:
    """The file of a LoRA, which is named by a path or by its stem in (subfolders of) the LoRA folder."""
    path = Path(name)
    if path.suffix.lower() in LORA_SUFFIXES and path.is_file():
        return path
    if folder is not None and not Path(folder).is_dir():
        raise SciArtError("lora-dir", f"{folder}: no such folder")
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in LORA_SUFFIXES) if folder else []
    found = [p for p in files if name in (p.stem, p.name, p.relative_to(folder).with_suffix("").as_posix())]
    if len(found) > 1:
        raise SciArtError("loras", f"{name!r} is ambiguous: {', '.join(map(str, found))}")
    if not found:
        raise SciArtError("loras", f"no LoRA {name!r}; {did_you_mean(name, [p.stem for p in files])}")
    return found[0]
