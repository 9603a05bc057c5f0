"""Peak memory, and what it may be at most.

On Linux the kernel keeps a process's largest resident size (VmHWM in /proc/self/status) and forgets it when
5 is written to /proc/self/clear_refs. What is measured is a fresh process whose allocator returns what is
freed (allocator.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.cost import Workload, tokens

PROCESS = Path("/proc/self")
MB = 2**20
FILE_SHARE = 1.2


def reset_peak() -> bool:
    """Forgets the peak so far; False where the system knows none."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mb() -> float | None:
    """The largest resident size since `reset_peak`."""
    return _status("VmHWM")


def mapped_mb() -> float | None:
    """The part of the resident size that is pages of mapped files."""
    return _status("RssFile")


def _status(field: str) -> float | None:
    try:
        status = (PROCESS / "status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{field}:")), None)


def bounds_mb(
    loras: Sequence[LoraFile], work: Workload, itemsize: int, limit_mb: float, levels: int = 4
) -> dict:
    """What each way of execution may add at most, in MB, and the parts of it.

    files: all factors as the files hold them; touched: the weights that the LoRAs change, of UNet and text
    encoder; activations: input, output and ranks of the one layer of the UNet where these are largest.
    """
    shapes: dict[str, tuple[int, int]] = {}
    ranks: dict[str, int] = {}
    for lora in loras:
        for name, delta in lora.layers.items():
            shapes[name] = (delta.up.shape[0], delta.down[0].numel())
            ranks[name] = ranks.get(name, 0) + delta.rank
    files = sum(lora.nbytes for lora in loras) / MB
    touched = sum(m * n for m, n in shapes.values()) * itemsize / MB
    activations = max(
        tokens(name, work, levels) * (m + n + ranks[name])
        for name, (m, n) in shapes.items()
        if name.startswith("unet_")
    )
    activations *= itemsize / MB
    branch = FILE_SHARE * files + activations
    bounds = {
        "branch": branch,
        "merge": branch + touched,
        "auto": branch + touched,
        f"auto_{limit_mb:.0f}mb": branch + min(limit_mb, touched),
    }
    return {"files": files, "touched": touched, "activations": activations, "bounds": bounds}


def compare(peaks: dict[str, dict], bounds: dict[str, float]) -> dict[str, dict]:
    """Each variant's peak beside that of none in its process: the increase, and whether its bound holds."""
    result = {}
    for name, peak in peaks.items():
        entry = {**peak, "over_none": round(peak["peak"] - peak["none"], 1)}
        if name in bounds:
            entry.update(bound=round(bounds[name], 1), holds=entry["over_none"] <= bounds[name])
            if "over_none_in_sampling" in entry:
                entry["holds_in_sampling"] = entry["over_none_in_sampling"] <= bounds[name]
        result[name] = entry
    return result
