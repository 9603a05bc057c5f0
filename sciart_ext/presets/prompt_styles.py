"""The shipped prompt styles: the science-imagination prompts in the WebUI's own form, CSV files of styles."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

STYLES_DIR = Path(__file__).parent / "shipped"


class Style(NamedTuple):
    """A text for the prompt, and one for the negative prompt; `{prompt}` in it stands for what the user wrote."""

    name: str
    prompt: str
    negative_prompt: str


def shipped_styles() -> list[Style]:
    """All of them, in the order of the files."""
    styles = []
    for path in sorted(STYLES_DIR.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            styles += [Style(**row) for row in csv.DictReader(file)]
    return styles
