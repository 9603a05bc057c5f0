"""The page of app.py, served by a Python that has the WebUI's gradio (tests/browser/requirements.txt)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

APP = Path(__file__).with_name("app.py")
PYTHON = os.environ.get("SCIART_GRADIO_PYTHON", sys.executable)
GRADIO = "3.41.2"


@pytest.fixture(scope="module")
def address(server):
    """Of the page, on which nothing has been saved yet."""
    urllib.request.urlopen(server + "as_new", timeout=10).close()
    return server


@pytest.fixture(scope="session")
def server():
    asked = subprocess.run([PYTHON, "-c", "from importlib import metadata; print(metadata.version('gradio'))"],
                           capture_output=True, text=True)
    if asked.stdout.strip() != GRADIO:
        pytest.skip(f"gradio {GRADIO} is needed, {PYTHON} has {asked.stdout.strip() or 'none'}; "
                    "set SCIART_GRADIO_PYTHON to a Python that has it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([PYTHON, str(APP), str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield wait_for(f"http://127.0.0.1:{port}/", server)
    finally:
        server.terminate()
        server.wait(10)


def wait_for(url, server):
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(server.stdout.read().decode())
        try:
            urllib.request.urlopen(url + "as_new", timeout=2).close()  # the route that is added last
            return url
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"no answer from {url}")
