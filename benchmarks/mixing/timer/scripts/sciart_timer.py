"""Benchmark-only extension: what the host's own sampling of the last picture took, in time and memory.

GET  /sciart-bench/last      seconds of sampling, wall and CPU; peaks in MB before, in and after it
POST /sciart-bench/reset     forgets the peak so far
GET  /sciart-bench/versions  of what the host runs on
"""

from __future__ import annotations

import functools
import platform
import time
from pathlib import Path

import torch
from fastapi import FastAPI
from modules import launch_utils, processing, script_callbacks

PROCESS = Path("/proc/self")
last: dict = {}


def reset_peak() -> None:
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        pass


def peak_mb() -> float | None:
    try:
        status = (PROCESS / "status").read_text()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None
    )


def measured(sample):
    """The host's sampling method, from the sampler's making to the last latent."""

    @functools.wraps(sample)
    def method(self, *args, **kwargs):
        last["peak_before"] = peak_mb()
        reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return sample(self, *args, **kwargs)
        finally:
            last.update(
                sampling=time.perf_counter() - wall, cpu=time.process_time() - cpu, peak_sampling=peak_mb()
            )

    return method


def versions() -> dict:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "webui": launch_utils.git_tag(),
    }


def add_routes(_demo, app: FastAPI) -> None:
    app.add_api_route("/sciart-bench/last", lambda: {**last, "peak_after": peak_mb()}, methods=["GET"])
    app.add_api_route("/sciart-bench/reset", reset_peak, methods=["POST"])
    app.add_api_route("/sciart-bench/versions", versions, methods=["GET"])


kind = processing.StableDiffusionProcessingTxt2Img
kind.sample = measured(kind.sample)
script_callbacks.on_app_started(add_routes)
