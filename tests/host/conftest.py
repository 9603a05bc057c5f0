"""Fixtures of the tests against a real WebUI: toy models made once, one server for the session."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import HERE, ONE_THREAD, HostServer, is_installed, make_tiny_models, webui_folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_installed(webui_folder()):
        return
    reason = f"no AUTOMATIC1111 WebUI in {webui_folder()}; set SCIART_WEBUI to its folder"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tiny_models() -> Path:
    """The toy checkpoints and LoRAs, kept from run to run (SCIART_HOST_MODELS names another place)."""
    if given := os.environ.get("SCIART_HOST_MODELS"):
        folder = Path(given).expanduser().resolve()
    else:
        sources = [
            HERE / "tiny_checkpoints.py",
            HERE / "tiny_variants.py",
            *sorted((HERE / "probe" / "open_clip_configs").glob("*.json")),
        ]
        version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()).resolve() / f"sciart-tiny-models-{version}"
    finished = folder / "finished"
    if not finished.exists():
        shutil.rmtree(folder / "Stable-diffusion", ignore_errors=True)
        make_tiny_models(webui_folder(), folder)
        finished.touch()
    return folder


@pytest.fixture(scope="session")
def host(tiny_models: Path) -> Iterator[HostServer]:
    """A WebUI without its page, with SciArt and the probe installed and tiny-sd1 loaded."""
    with HostServer(models=tiny_models, env=ONE_THREAD) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_world_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model that SciArt ships as the checkpoint `sciart-tiny`, and its LoRAs under their own names."""
    pytest.importorskip("diffusers")
    from sciart_ext.standalone.export import export_webui
    from sciart_ext.world import MODEL

    models = tmp_path_factory.mktemp("models")
    for path in export_webui(MODEL, models, "sciart-tiny"):
        if path.parent.name == "Lora":
            path.rename(path.with_name(path.name.removeprefix("sciart-tiny-")))
    return models


@pytest.fixture(scope="session")
def tiny_world(tiny_world_models: Path) -> Iterator[HostServer]:
    """A WebUI without its page, in which it is loaded."""
    with HostServer(models=tiny_world_models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD) as server:
        yield server


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    """The tiny model that SciArt ships as the checkpoint `sciart-tiny`, with its LoRAs, and once more as `refiner`."""
    pytest.importorskip("diffusers")
    from sciart_ext.standalone.export import export_webui
    from sciart_ext.world import MODEL

    models = tmp_path_factory.mktemp("models")
    for name in ("sciart-tiny", "refiner"):
        export_webui(MODEL, models, name)
    with HostServer(models=models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD) as server:
        yield server
