"""The report as a folder: the page, its pictures, and its numbers for other programs."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .measures import PHASES
from .page import report_page
from .report import Report, as_data, effects_of, heat_sheets


def save_report(told: Report, folder: Path) -> Path:
    """Writes index.html, influence.json, curves.csv, shares.csv, maps.npz and the pictures; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(told.question.sets):
        Image.fromarray(told.pictures[one]).save(folder / f"{number:02d}_{file_name(told.title(one))}.png")
    maps = {}
    for kind, effects in effects_of(told.influence).items():
        maps[f"heat_{kind}"] = effects.heat.numpy()
    for kind, sheet in heat_sheets(told).items():
        sheet.save(folder / f"heat_{kind}.png")
    if told.influence.shares is not None:
        maps["shares"] = told.influence.shares.maps.numpy()
        _write_csv(folder / "shares.csv", ["lora", "part", "error", *PHASES], _share_rows(told))
    for word, of_sets in told.words.items():
        maps[f"word_{word}"] = np.stack([of_sets[one].numpy() for one in told.question.sets])
    np.savez_compressed(folder / "maps.npz", sets=np.array([told.title(one) for one in told.question.sets]), **maps)
    _write_csv(folder / "curves.csv", ["background", "lora", "step", "distance"], _curve_rows(told))
    text = json.dumps(as_data(told), ensure_ascii=False, indent=1)
    (folder / "influence.json").write_text(text + "\n", encoding="utf-8")
    page = folder / "index.html"
    page.write_text(report_page(told), encoding="utf-8")
    return page


def file_name(title: str) -> str:
    """A title as a file is called on any system."""
    return re.sub(r'[<>:"/\\|?*\s\x00-\x1f]+', "_", title).strip("._") or "_"


def _share_rows(told: Report) -> Iterable[Sequence]:
    shares = told.influence.shares
    for k, name in enumerate(told.influence.names):
        yield name, float(shares.parts[k]), float(shares.errors[k]), *(float(phase[k]) for phase in shares.phases)


def _curve_rows(told: Report) -> Iterable[Sequence]:
    for kind, effects in effects_of(told.influence).items():
        for name, curve in zip(told.influence.names, effects.curves):
            for step, distance in enumerate(curve.tolist()):
                yield kind, name, step, distance


def _write_csv(path: Path, heads: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])
