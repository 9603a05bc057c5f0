"""Cards of LoRA files: what each is, and whether it fits a model; read once, until the file changes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import SciArtError
from ..lora.file import outline_lora
from ..lora.opened import fingerprint
from .fit import check_fit
from .targets import Target

_TOLD = ("name", "file", "kind", "rank", "base", "error")


class Cards:
    """Cards of files for one model."""

    def __init__(self) -> None:
        self._cards: dict[tuple[str, int, int], dict] = {}

    def forget(self) -> None:
        """For another model."""
        self._cards.clear()

    def told(self, files: Mapping[str, Path], layers: Mapping[str, Target] | None, model: str, seconds: float,
             first: Iterable[str] = ()) -> list[dict]:
        """A card for each file, in the order of names: "name", "file", "bytes", "kind", "rank", "base", "fits" (None
        without `layers`, those of the model called `model`) and "fit_note"; or "error" in place of what it is.

        Where there are many files, those called `first` are read first. What was not read after so many seconds is
        "unread": true, and is read when it is asked again; at least one file always is.
        """
        found = {name: _stamp(files[name]) for name in sorted(files, key=str.lower)}
        kept = set(found.values())
        self._cards = {key: card for key, card in self._cards.items() if key in kept}
        ends = time.monotonic() + seconds
        for name in dict.fromkeys([*(name for name in first if name in found), *found]):
            if found[name] in self._cards:
                continue
            self._cards[found[name]] = _card(files[name], name, found[name][2], layers, model)
            if time.monotonic() > ends:
                break
        return [{**self._cards.get(key, {"file": files[name].name, "bytes": key[2], "unread": True}), "name": name}
                for name, key in found.items()]


def _stamp(path: Path) -> tuple[str, int, int]:
    """The fingerprint; of a file that is gone, which its card tells, one of no time and no bytes."""
    try:
        return fingerprint(path)
    except SciArtError:
        return str(path), 0, 0


def _card(path: Path, name: str, size: int, layers: Mapping[str, Target] | None, model: str) -> dict:
    try:
        outline = outline_lora(path, name)
    except SciArtError as error:
        return {"file": path.name, "bytes": size, "error": str(error)}
    report = outline.report()
    card = {**{key: report[key] for key in _TOLD if key in report}, "bytes": size, "fits": None, "fit_note": ""}
    if layers is None:
        return card
    try:
        return {**card, "fits": True, "fit_note": "; ".join(check_fit([outline], layers, model))}
    except SciArtError as error:
        return {**card, "fits": False, "fit_note": str(error)}
