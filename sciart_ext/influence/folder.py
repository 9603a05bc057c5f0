"""The report as a folder: the page, its pictures, and its numbers for other programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..whole_file import write_text, written_whole
from .measures import PHASES
from .page import report_page
from .report import Report, as_data, effects_of, heat_sheets

MOST_NAME = 60
"""characters of a title in a file's name: systems count its bytes, up to 255, and a character may have four"""


def save_report(told: Report, folder: Path) -> Path:
    """Writes index.html, influence.json, curves.csv, shares.csv, maps.npz and the pictures; returns the page's path."""
    for number, one in enumerate(told.question.sets):
        _save_png(folder / f"{number:02d}_{file_name(told.title(one))}.png", Image.fromarray(told.pictures[one]))
    maps = {}
    for kind, effects in effects_of(told.influence).items():
        maps[f"heat_{kind}"] = effects.heat.numpy()
    for kind, sheet in heat_sheets(told).items():
        _save_png(folder / f"heat_{kind}.png", sheet)
    if told.influence.shares is not None:
        maps["shares"] = told.influence.shares.maps.numpy()
        _write_csv(folder / "shares.csv", ["lora", "part", "error", *PHASES], _share_rows(told))
    for word, of_sets in told.words.items():
        maps[f"word_{word}"] = np.stack([of_sets[one].numpy() for one in told.question.sets])
    data = io.BytesIO()
    np.savez_compressed(data, sets=np.array([told.title(one) for one in told.question.sets]), **maps)
    with written_whole(folder / "maps.npz") as temporary:
        temporary.write_bytes(data.getbuffer())
    _write_csv(folder / "curves.csv", ["background", "lora", "step", "distance"], _curve_rows(told))
    write_text(folder / "influence.json", json.dumps(as_data(told), ensure_ascii=False, indent=1) + "\n")
    page = folder / "index.html"
    write_text(page, report_page(told))
    return page


def file_name(title: str) -> str:
    """A title as a file is called on any system."""
    return re.sub(r'[<>:"/\\|?*\s\x00-\x1f]+', "_", title).strip("._")[:MOST_NAME] or "_"


def _share_rows(told: Report) -> Iterable[Sequence]:
    shares = told.influence.shares
    for k, name in enumerate(told.influence.names):
        yield name, float(shares.parts[k]), float(shares.errors[k]), *(float(phase[k]) for phase in shares.phases)


def _curve_rows(told: Report) -> Iterable[Sequence]:
    for kind, effects in effects_of(told.influence).items():
        for name, curve in zip(told.influence.names, effects.curves):
            for step, distance in enumerate(curve.tolist()):
                yield kind, name, step, distance


def _save_png(path: Path, picture: Image.Image) -> None:
    with written_whole(path) as temporary:
        picture.save(temporary, "PNG")


def _write_csv(path: Path, heads: Sequence[str], rows: Iterable[Sequence]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])
