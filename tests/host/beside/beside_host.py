"""Other extensions beside SciArt: `SCIART_BESIDE` names a folder in which they lie by the names of their repositories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SCIART_BESIDE"


def folder_of(name: str) -> Path:
    """Where the extension lies; skips the test where it does not."""
    if not (given := os.environ.get(VARIABLE)):
        pytest.skip(f"{VARIABLE} names no folder of extensions; {name} is needed")
    folder = Path(given).expanduser().resolve() / name
    if not folder.is_dir():
        pytest.skip(f"no extension {name} in {given} ({VARIABLE})")
    return folder
