"""What every training shares: seeded steps, progress, a loss curve, checkpoints, and going on where it stopped."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.record import commit, machine

RUNS = Path(__file__).with_name("runs")
AVERAGE_DECAY = 0.999


@dataclass
class Training:
    """One training: `for generator in training.run(): … training.learn(loss=…)`.

    parameters: what is learned, by name; rate: AdamW's, up over `warm_up` steps, then down along a half cosine to
    2 %; settings: what else is written down beside the loss curve. `average` has the moving average of the parameters.
    """

    name: str
    steps: int
    parameters: Mapping[str, nn.Parameter]
    rate: float
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    decay: float = 0.0
    """of weights"""
    warm_up: int = 100
    save_every: int = 250
    log_every: int = 25
    step: int = 0
    minutes: float = 0.0
    curve: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.device = str(next(iter(self.parameters.values())).device.type)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=self.rate, betas=(0.9, 0.99),
                                           weight_decay=self.decay)
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.settings = {**self.settings, "rate": self.rate, "steps": self.steps}  # the rate's curve depends on both
        self._sums: dict[str, list[float]] = {}

    def run(self) -> Iterator[torch.Generator]:
        """Yields each step's own random numbers, so that a resumed run is the run that was not interrupted."""
        self._resume()
        began, before = time.monotonic(), self.minutes
        while self.step < self.steps:
            yield torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            self.step += 1
            self.minutes = before + (time.monotonic() - began) / 60
            if self.step % self.log_every == 0 or self.step == self.steps:
                self._log()
            if self.step % self.save_every == 0 or self.step == self.steps:
                self._save()
        self._write_down()

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU; a CPU is quicker in full precision."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")

    def learn(self, **losses: Tensor) -> None:
        """One step down the sum of these losses, which are recorded by name."""
        factor = min(1.0, (self.step + 1) / self.warm_up) * (0.02 + 0.49 * (1 + math.cos(math.pi * self.progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        share = 1 - min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        for name, value in self.parameters.items():
            self.average[name].lerp_(value.detach(), share)
        for name, value in losses.items():
            self._sums.setdefault(name, []).append(value.item())

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
        state = {"step": self.step, "minutes": self.minutes, "curve": self.curve, "settings": self.settings,
                 "parameters": {name: value.detach() for name, value in self.parameters.items()},
                 "average": self.average, "optimizer": self.optimizer.state_dict()}
        unfinished = self._checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        os.replace(unfinished, self._checkpoint)

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        if state["settings"] != self.settings:
            raise SystemExit(f"{self._checkpoint} was made with other settings: {state['settings']}; remove it")
        self.step, self.minutes, self.curve = state["step"], state["minutes"], state["curve"]
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(state["parameters"][name])
        print(f"{self.name}: going on from step {self.step}", flush=True)

    def _write_down(self) -> None:
        RUNS.mkdir(exist_ok=True)
        record = {"name": self.name, "steps": self.steps, "seed": self.seed, "settings": self.settings,
                  "minutes": round(self.minutes, 1), "machine": machine(self.device), "torch": torch.__version__,
                  "threads": torch.get_num_threads(), "commit": commit("training", "sciart_ext/world"),
                  "curve": self.curve}
        (RUNS / f"{self.name}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
