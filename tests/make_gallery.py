"""Makes the pictures of docs/gallery.md again, by its own commands.

    python tests/make_gallery.py [NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pages import ROOT, blocks_of, split_commands
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sciart_ext.cli import main

PAGE = ROOT / "docs" / "gallery.md"


def commands() -> dict[str, list[str]]:
    """The arguments of each command of the page, by the name of the picture that it makes."""
    given = [words[3:] for block in blocks_of(PAGE) for words in split_commands(block.text)]
    return {Path(arguments[arguments.index("--out") + 1]).stem: arguments for arguments in given}


def make(names: list[str], out: Path) -> list[Path]:
    """Makes the pictures of these names, or all, and writes them small into `out`; their infotexts stay in them."""
    known = commands()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no picture {unknown[0]!r}; accepted: {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        for name in names or known:
            if main([*known[name], "--quiet"]):
                raise RuntimeError(f"the command of {name} was refused")
        for path in sorted(Path("gallery").glob("*.png")):
            written.append(out / path.name)
            write_small(path, written[-1])
    return written


@contextlib.contextmanager
def inside(folder: str) -> Iterator[None]:
    """The working directory while it lasts."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def write_small(source: Path, target: Path) -> None:
    """The same PNG, better packed."""
    with Image.open(source) as picture:
        kept = PngInfo()
        for key, text in picture.text.items():
            kept.add_text(key, text)
        picture.save(target, "PNG", optimize=True, pnginfo=kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the pictures of docs/gallery.md again.")
    parser.add_argument("names", nargs="*", help="of the pictures; default: all")
    for written in make(parser.parse_args().names, ROOT / "docs" / "gallery"):
        print(f"{written} ({written.stat().st_size} bytes)")
