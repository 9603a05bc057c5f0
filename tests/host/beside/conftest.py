"""Fixtures of the tests beside other extensions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from asking import made
from beside_host import folder_of
from server import ONE_THREAD, PROBE, SCIART, HostServer, Reply, make_tiny_models, webui_folder

NOT_COPIED = shutil.ignore_patterns(".git", "__pycache__", "*.sqlite3*")


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


@pytest.fixture(scope="module")
def sd15_models(tmp_path_factory) -> Iterator[Path]:
    """A checkpoint of SD 1.5's size with random weights, and LoRAs of rank 32 for it: 4 GB of disk, some minutes."""
    models = make_tiny_models(webui_folder(), tmp_path_factory.mktemp("sd15"), "sd15")
    for made_as, name in (("bench-a", "child"), ("bench-b", "watercolor")):
        (models / "Lora" / f"{made_as}.safetensors").rename(models / "Lora" / f"{name}.safetensors")
    yield models
    for path in models.rglob("*.safetensors"):
        path.unlink()  # pytest keeps its folders for some runs


@pytest.fixture
def as_before(both: HostServer) -> Iterator[Reply]:
    """The plain picture; it and the model are the same afterwards. `both`: the module's own host."""
    both.post("/probe/reset")
    plain, state = made(both), both.probe()
    yield plain
    both.post("/probe/reset")
    assert made(both).pngs[0] == plain.pngs[0] and both.probe() == state
