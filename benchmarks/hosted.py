"""A WebUI with the tiny model, for benchmarks that need one; without one their last kept result stands."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sciart_ext.standalone.export import export_webui
from sciart_ext.world import MODEL

from . import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "host"))  # as pytest has it

from server import ONE_THREAD, HostServer, Reply, is_installed, webui_folder

__all__ = ["HostServer", "Reply", "result_of", "tiny_host"]


@contextmanager
def tiny_host() -> Iterator[HostServer]:
    """A WebUI that is started for it, and stopped; its LoRAs are called `sciart-tiny-…`."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        export_webui(MODEL, models, "sciart-tiny")
        with HostServer(models=models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD) as host:
            yield host


def result_of(kind: str, measured: Callable[[], dict], quick: bool) -> dict:
    """What is measured now, kept unless it is quick; where there is no WebUI, what was kept last."""
    if not is_installed(webui_folder()):
        print("no WebUI: what was kept", flush=True)
        return record.latest(kind)
    result = {"machine": record.machine(), "commit": record.commit(), **measured()}
    if not quick:
        print("kept in", record.write(kind, result))
    return result
