"""The tests of `tests/` that need CUDA, where what they use is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from .. import record

NEEDED = ("pytest", "numpy", "pydantic", "safetensors", "PIL", "diffusers", "transformers")
COMMAND = ("-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "--ignore", "tests/host", "--ignore",
           "tests/browser", "tests")


def run(seconds: float) -> dict:
    """`told`, one line for people, and whether a test `failed`; not run after so many seconds."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return {"told": f"not run: they need {', '.join(missing)}", "failed": False}
    try:
        done = subprocess.run([sys.executable, *COMMAND], cwd=record.ROOT, capture_output=True, text=True, check=False,
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"told": f"not done within {seconds:.0f} seconds; python {' '.join(COMMAND)} runs them alone",
                "failed": True}
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was said"]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"told": lines[-1], "failed": done.returncode != 0, **({"failures": failures} if failures else {})}
