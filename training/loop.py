"""What every training shares: seeded steps, progress, a loss curve, checkpoints, and going on where it stopped."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

RUNS = Path(__file__).with_name("runs")
ROOT = RUNS.parents[1]


class Stateful(Protocol):
    """Modules and optimizers."""

    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> Any: ...


@dataclass
class Training:
    """One training: `for generator in training.run(): … training.record(loss=…)`.

    kept: what a checkpoint holds; settings: what is written down beside the loss curve.
    """

    name: str
    steps: int
    kept: Mapping[str, Stateful]
    settings: Mapping[str, Any]
    folder: Path
    seed: int = 0
    save_every: int = 250
    log_every: int = 25
    step: int = 0
    minutes: float = 0.0
    curve: list[dict] = field(default_factory=list)

    def run(self) -> Iterator[torch.Generator]:
        """Yields each step's own random numbers, so that a resumed run is the run that was not interrupted."""
        self._resume()
        began, before = time.monotonic(), self.minutes
        self._sums: dict[str, list[float]] = {}
        while self.step < self.steps:
            yield torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            self.step += 1
            self.minutes = before + (time.monotonic() - began) / 60
            if self.step % self.log_every == 0 or self.step == self.steps:
                self._log()
            if self.step % self.save_every == 0 or self.step == self.steps:
                self._save()
        self._write_down()

    def record(self, **values: float) -> None:
        for name, value in values.items():
            self._sums.setdefault(name, []).append(float(value))

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return self.step / self.steps

    def _log(self) -> None:
        means = {name: round(sum(values) / len(values), 5) for name, values in self._sums.items()}
        self._sums.clear()
        self.curve.append({"step": self.step, **means})
        left = self.minutes / self.step * (self.steps - self.step)
        print(f"{self.name} {self.step}/{self.steps}  "
              + "  ".join(f"{name} {value:.4f}" for name, value in means.items())
              + f"  {self.minutes:.1f} min, about {left:.0f} left", flush=True)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / f"{self.name}.checkpoint"

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"step": self.step, "minutes": self.minutes, "curve": self.curve, "settings": dict(self.settings),
                 "kept": {name: item.state_dict() for name, item in self.kept.items()}}
        unfinished = self._checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        os.replace(unfinished, self._checkpoint)

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        if state["settings"] != dict(self.settings):
            raise SystemExit(f"{self._checkpoint} was made with other settings: {state['settings']}; remove it")
        self.step, self.minutes, self.curve = state["step"], state["minutes"], state["curve"]
        for name, item in self.kept.items():
            item.load_state_dict(state["kept"][name])
        print(f"{self.name}: going on from step {self.step}", flush=True)

    def _write_down(self) -> None:
        RUNS.mkdir(exist_ok=True)
        record = {"name": self.name, "steps": self.steps, "seed": self.seed, "settings": dict(self.settings),
                  "minutes": round(self.minutes, 1), "machine": machine(), "torch": torch.__version__,
                  "commit": commit(), "curve": self.curve}
        (RUNS / f"{self.name}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: torch.nn.Module, decay: float = 0.999):
        self.module, self.decay = module, decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict:
        return self.values

    def load_state_dict(self, state: dict) -> None:
        self.values = state


def warm_cosine(progress: float, step: int, warm_up: int = 100) -> float:
    """Learning rate factor: up over the first steps, then down along a half cosine to 2 %."""
    return min(1.0, (step + 1) / warm_up) * (0.02 + 0.49 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item()))


def machine() -> dict:
    facts = {"system": platform.system(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def commit() -> str:
    """The commit trained from, with a + where files had been changed since."""
    try:
        head, changed = (subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout
                         for args in (["rev-parse", "--short", "HEAD"],
                                      ["status", "--porcelain", "training", "sciart_ext/world"]))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")
