"""How `loras` and `geometry` are told of which files: by names in the LoRA folder, by files, by folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import SciArtError, did_you_mean
from ..lora.folder import LORA_SUFFIXES, find_lora, lora_files


def files_of(words: Sequence[str], folder: Path | None) -> list[tuple[str, Path | SciArtError]]:
    """(what it is called, the file or why there is none) of each word; a folder stands for all LoRA files in it."""
    found: list[tuple[str, Path | SciArtError]] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = lora_files(path)
            found += [(str(one), one) for one in inside] or [(word, SciArtError(word, "holds no LoRA file"))]
            continue
        try:
            found.append((word, path if path.is_file() else find_lora(word, folder)))
        except SciArtError as error:
            is_path = path.suffix.lower() in LORA_SUFFIXES
            found.append((word, _no_file(path, folder) if is_path else error))
    return found


def _no_file(path: Path, folder: Path | None) -> SciArtError:
    """The refusal of a file's name, with those that are beside it, or in the LoRA folder."""
    place = path.parent if path.parent != Path() else folder
    known = [one.name for one in place.iterdir() if one.suffix.lower() in LORA_SUFFIXES] if (
        place is not None and place.is_dir()) else []
    return SciArtError(path.name, f"no such file; {did_you_mean(path.name, known)}")
