"""The measurement in a real WebUI, through its API."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sciart_ext.lora.file import load_lora
from sciart_ext.mixer.cost import Workload
from tests.host.server import HERE, SCIART, HostServer, make_tiny_models, webui_folder

from .allocator import RETURNING
from .memory import bounds_mb, compare
from .variants import COUNTS, LIMIT_MB, NONE, Variant, memory_variants

TIMER = Path(__file__).resolve().parent / "timer"
LORACTL_SCRIPT = "Dynamic Lora Weights"
PROMPT = "a rocket and a robot in space"
SIZES = {
    "sd15": ("sd15-random.safetensors", ("bench-a", "bench-b", "bench-c")),
    "tiny": ("tiny-sd1.safetensors", ("child", "watercolor", "science")),
}


def loractl_folder() -> Path | None:
    """The peer extension's folder, where SCIART_LORACTL names one."""
    given = os.environ.get("SCIART_LORACTL")
    return Path(given).expanduser().resolve() if given else None


@dataclass
class HostBench:
    """One picture's settings, and the WebUI that makes it. `model`: sd15 or tiny."""

    model: str
    size: int
    steps: int
    loractl: Path | None = field(default_factory=loractl_folder)

    def __post_init__(self):
        self.checkpoint, self.loras = SIZES[self.model]
        self.models = bench_models(self.model)
        self.names = [*self.loras, *(f"copy-{i:02}" for i in range(len(self.loras), max(COUNTS)))]
        self.versions: dict = {}
        self.differences: dict[str, float] = {}
        self.plain: np.ndarray | None = None

    def server(self, env: dict[str, str] | None = None) -> HostServer:
        """The host encodes the prompt anew for every picture, whatever the variant, and draws no previews."""
        extensions = {"sciart": SCIART, "sciart-bench-timer": TIMER}
        if self.loractl:
            extensions["loractl"] = self.loractl
        settings = {"persistent_cond_cache": False, "live_previews_enable": False}
        return HostServer(
            models=self.models,
            checkpoint=self.checkpoint,
            extensions=extensions,
            settings=settings,
            env=env or {},
            start_timeout=600,
            request_timeout=3600,
        )

    def picture(self, server: HostServer, variant: Variant, steps: int | None = None) -> dict:
        """Makes one picture; says what it took. Raises where the variant's LoRAs cannot have acted."""
        scripts = {"SciArt": {"args": [variant.recipe() if variant.how == "ours" else None]}}
        if self.loractl:
            scripts[LORACTL_SCRIPT] = {"args": [variant.how == "loractl", False]}
        began = time.perf_counter()
        reply = server.txt2img(
            prompt=PROMPT + variant.prompt_tags(self.steps),
            negative_prompt="blurry",
            width=self.size,
            height=self.size,
            steps=steps or self.steps,
            cfg_scale=7,
            alwayson_scripts=scripts,
        )
        taken = time.perf_counter() - began
        if reply.status != 200:
            raise RuntimeError(f"{variant.name}: the host answered {reply.status}: {reply.text[:2000]}")
        if ("SciArt:" in reply.infotext) != (variant.how == "ours") or "SciArt notes" in reply.infotext:
            raise RuntimeError(f"{variant.name}: unexpected infotext {reply.infotext}")
        last = server.get("/sciart-bench/last").json
        return {**last, "request": taken, "picture": reply.pictures[0].astype(float)}

    def timed(self, server: HostServer, variant: Variant, steps: int | None = None) -> dict:
        """Seconds of the second of two equal pictures; `first` is the sampling of the first.

        In the first the host restores and rewrites the weights that the variant before had changed, and SciArt
        builds constant merged weights; the second is what the next picture with these settings takes.
        """
        first = self.picture(server, variant, steps=steps)
        taken = self.picture(server, variant, steps=steps)
        self.compare_pictures(variant, taken.pop("picture"), final=steps is None)
        return {**{name: taken[name] for name in ("sampling", "cpu", "request")}, "first": first["sampling"]}

    def compare_pictures(self, variant: Variant, picture: np.ndarray, final: bool) -> None:
        """Holds that LoRAs acted: keeps each picture's mean difference from the one without LoRAs."""
        if not final:
            return
        if variant == NONE:
            self.plain = picture
        elif self.plain is not None:
            self.differences[variant.name] = round(float(np.abs(picture - self.plain).mean()), 3)
            if not self.differences[variant.name]:
                raise RuntimeError(
                    f"{variant.name}: the picture is the one without LoRAs; nothing was measured"
                )

    def peaks(self, steps: int = 2) -> dict:
        """Peak memory of each variant, each in a fresh server, beside a picture without LoRAs in that server.

        Every picture is made twice and the second counts; `first` is the peak of the first.
        """
        peaks = {}
        for variant in memory_variants(self.loras, True, self.loractl is not None):
            with self.server(RETURNING) as server:
                self._peak(server, NONE, steps)
                plain = self._peak(server, NONE, steps)
                if plain is None:
                    return {}
                first, second = (self._peak(server, variant, steps) for _ in range(2))
            peaks[variant.name] = {
                "none": plain["request"],
                "peak": second["request"],
                "first": first["request"],
                "over_none_in_sampling": round(second["sampling"] - plain["sampling"], 1),
            }
            print(f"  memory of {variant.name}: {peaks[variant.name]}", flush=True)
        files = [load_lora(self.models / "Lora" / f"{name}.safetensors") for name in self.loras]
        work = Workload(steps, steps, 2, self.size // 8, self.size // 8)
        parts = bounds_mb(files, work, itemsize=4, limit_mb=LIMIT_MB)
        return {
            "variants": compare(peaks, parts["bounds"]),
            **{name: round(parts[name], 1) for name in ("files", "touched", "activations")},
        }

    def _peak(self, server: HostServer, variant: Variant, steps: int) -> dict | None:
        server.post("/sciart-bench/reset")
        taken = self.picture(server, variant, steps=steps)
        if taken["peak_after"] is None:
            return None
        peaks = [taken[f"peak_{part}"] for part in ("before", "sampling", "after")]
        return {"request": round(max(peaks), 1), "sampling": round(taken["peak_sampling"], 1)}


def bench_models(model: str) -> Path:
    """The checkpoint and LoRAs, made once, with as many copies of the LoRAs as the largest count needs."""
    script = HERE / "tiny_checkpoints.py"
    version = hashlib.sha256(script.read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()).resolve() / f"sciart-bench-{model}-{version}"
    finished = folder / "finished"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"writing models of random weights ({model})", flush=True)
        make_tiny_models(webui_folder(), folder, model)
        copy_loras(folder / "Lora", SIZES[model][1])
        finished.touch()
    return folder


def copy_loras(folder: Path, names: Sequence[str]) -> None:
    for i in range(len(names), max(COUNTS)):
        source = folder / f"{names[i % len(names)]}.safetensors"
        shutil.copyfile(source, folder / f"copy-{i:02}.safetensors")
