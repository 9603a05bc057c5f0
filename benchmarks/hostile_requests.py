"""The part of `benchmarks.hostile` about requests: to the routes themselves, as far as they go without a WebUI."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from served import Served
from strange_requests import StrangeRequest
from strange_requests import requests as strange_requests

from .hostile_fuzzing import drive, keep


def requests(minutes: float, kept: Path) -> dict:
    """{"requests": how many, "requests_500": how many were answered otherwise than with what was asked or a refusal in
    few words}, after so many minutes; failures are kept in this folder."""
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder)) as served:
        def failed(request: StrangeRequest, error: BaseException) -> None:
            told = {**asdict(request), "body": (request.body or b"").decode("latin-1")}
            print("WRONG:", type(error).__name__, str(error)[:300], keep(kept, json.dumps(told).encode(), ".request"),
                  flush=True)

        tried, wrong = drive(strange_requests(), served.send, 60 * minutes, failed)
    return {"requests": tried, "requests_500": wrong}
