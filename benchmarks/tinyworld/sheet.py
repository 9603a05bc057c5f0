"""A sheet of 64 pictures of the tiny model, each kind of object alone and in twos, for people to look at.

    python -m benchmarks.tinyworld.sheet docs/tiny-world.png
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sciart_ext.world import MODEL
from sciart_ext.world.captions import caption
from sciart_ext.world.scenes import KINDS, PLACES, random_scene

from .sampling import Pictures

COLUMNS, ROWS = 8, 8
TEXT_HEIGHT, LETTERS = 24, 27


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    pictures = Pictures(options.model, options.device)
    prompts = sheet_prompts()
    made = [pictures.make(prompt, [1000 + number])[0] for number, prompt in enumerate(prompts)]
    options.file.parent.mkdir(parents=True, exist_ok=True)
    sheet(made, prompts).save(options.file, optimize=True)
    print(options.file)


def sheet_prompts() -> list[str]:
    """Each kind, by column: in each place alone (4 rows), then beside another kind (4 rows)."""
    rng = np.random.default_rng(8)
    kinds = list(KINDS)
    alone = [caption(random_scene(rng, [kind], place)) for place in PLACES for kind in kinds]
    both = [caption(random_scene(rng, [kind, kinds[(i + row + 1) % len(kinds)]], place))
            for row, place in enumerate(PLACES) for i, kind in enumerate(kinds)]
    return alone + both


def sheet(pictures: list[np.ndarray], texts: list[str]) -> Image.Image:
    side = len(pictures[0])
    whole = Image.new("RGB", (COLUMNS * side, ROWS * (side + TEXT_HEIGHT)), "white")
    pen = ImageDraw.Draw(whole)
    for number, (picture, text) in enumerate(zip(pictures, texts)):
        x, y = number % COLUMNS * side, number // COLUMNS * (side + TEXT_HEIGHT)
        whole.paste(Image.fromarray(picture), (x, y))
        pen.multiline_text((x + 2, y + side + 1), textwrap.fill(text, LETTERS), fill="black", font_size=8, spacing=1)
    return whole.quantize(256)


if __name__ == "__main__":
    main()
