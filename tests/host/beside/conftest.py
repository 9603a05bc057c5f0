"""Other extensions beside SciArt: `SCIART_BESIDE` names a folder in which they lie by the names of their repositories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from server import ONE_THREAD, PROBE, SCIART, HostServer

VARIABLE = "SCIART_BESIDE"
NOT_COPIED = shutil.ignore_patterns(".git", "__pycache__", "*.sqlite3*")


def folder_of(name: str) -> Path:
    """Where the extension lies; skips the test where it does not."""
    if not (given := os.environ.get(VARIABLE)):
        pytest.skip(f"{VARIABLE} names no folder of extensions; {name} is needed")
    folder = Path(given).expanduser().resolve() / name
    if not folder.is_dir():
        pytest.skip(f"no extension {name} in {given} ({VARIABLE})")
    return folder


@pytest.fixture(scope="module")
def webui(tmp_path_factory, tiny_models) -> Iterator[Callable[..., HostServer]]:
    """webui(names, **more): a host with SciArt and these extensions, copied, for some write into their own folders."""
    with ExitStack() as stack:
        def started(*names: str, **more) -> HostServer:
            copies = tmp_path_factory.mktemp("extensions")
            for name in names:
                shutil.copytree(folder_of(name), copies / name, ignore=NOT_COPIED)
            extensions = {"sciart": SCIART, "sciart-probe": PROBE, **{name: copies / name for name in names}}
            return stack.enter_context(HostServer(**{
                "models": tiny_models, "env": ONE_THREAD, "extensions": extensions, **more}))

        yield started
