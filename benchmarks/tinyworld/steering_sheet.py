"""Merged and steered pictures of the first seeds of `benchmarks.steer`, side by side, for people to look at.

    python -m benchmarks.tinyworld.steering_sheet docs/steering.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sciart_ext.world import MODEL

from .sampling import Pictures
from .steering import CASES, FIRST_SEED, pictures_of, prompt_of

COLUMNS = 6
ROWS = ("merge", "contrastive")
LABEL, TITLE = 84, 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    pictures, seeds = Pictures(MODEL), range(FIRST_SEED, FIRST_SEED + COLUMNS)
    made = {names: [pictures_of(pictures, seeds, names, variant, styled=False)[0] for variant in ROWS]
            for names in (*CASES["two"], *CASES["same_class"])}
    options.file.parent.mkdir(parents=True, exist_ok=True)
    sheet(made).quantize(256).save(options.file, optimize=True)
    print(options.file)


def sheet(made: dict[tuple[str, ...], list[np.ndarray]]) -> Image.Image:
    """Individuals → a row of pictures (COLUMNS, side, side, 3) for each of ROWS."""
    side = next(iter(made.values()))[0].shape[1]
    group = TITLE + len(ROWS) * side
    whole = Image.new("RGB", (LABEL + COLUMNS * side, len(made) * group), "white")
    pen = ImageDraw.Draw(whole)
    for number, (names, rows) in enumerate(made.items()):
        pen.text((LABEL, number * group + 3), prompt_of(names), fill="black", font_size=12)
        for i, (label, row) in enumerate(zip(("merged", "each on its\nown subject"), rows)):
            y = number * group + TITLE + i * side
            pen.multiline_text((4, y + side // 2 - 12), label, fill="black", font_size=12)
            whole.paste(Image.fromarray(np.concatenate(list(row), 1)), (LABEL, y))
    return whole


if __name__ == "__main__":
    main()
