"""What once went wrong, or could have, does so no more: the files of `found`, which `benchmarks.hostile` adds to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from promises import check_file, check_recipe

FOUND = sorted(path for path in (Path(__file__).parent / "found").iterdir() if path.suffix != ".md")
RECIPES = {".json": lambda path: json.loads(path.read_text(encoding="utf-8")), ".txt": Path.read_bytes}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_it_ends_as_promised(path):
    if path.suffix in RECIPES:
        check_recipe(RECIPES[path.suffix](path))
    else:
        check_file(path)
