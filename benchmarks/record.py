"""Where something was measured or trained, and the file that keeps a measurement."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parents[1]


def machine(device: str = "cpu") -> dict:
    """Model and number of processors, and how busy they were."""
    facts = {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.system()}
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def commit(*paths: str) -> str:
    """The commit that is checked out, with a + where files under these paths (sciart_ext) were changed since."""
    try:
        head, changed = (
            subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for args in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", *(paths or ["sciart_ext"])])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")


def latest(kind: str) -> dict:
    """The newest result of a kind, by the date and number in its name."""
    found = {tuple(map(int, match.groups("1"))): path for path in RESULTS.glob(f"{kind}-*.json")
             if (match := re.fullmatch(rf"{kind}-(\d+)-(\d+)-(\d+)(?:-(\d+))?", path.stem))}
    return json.loads(found[max(found)].read_text(encoding="utf-8"))


def write(kind: str, result: dict) -> Path:
    """Keeps a result as benchmarks/results/<kind>-<date>.json; never overwrites one."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"{kind}-{datetime.now():%Y-%m-%d}"
    path, number = RESULTS / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = RESULTS / f"{stem}-{number}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
