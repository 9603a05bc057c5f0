"""The part of `benchmarks.hostile` about LoRA files."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, replace
from pathlib import Path

from costly import LARGE, SUFFIXED, layers, safetensors
from hypothesis import strategies as st
from measuring import attempted, taken
from strangers import PICKLES
from strangers import safetensors as strange_safetensors

from sciart_ext.lora.file import load_lora

from .hostile_fuzzing import drive, keep

SMALL = 2**20
SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin", ".pth")
SLOW = 300.0
"""milliseconds from which on a fuzzed file is measured more closely"""


@dataclass(frozen=True)
class Found:
    """Of so many files: how many were wrong, the slowest in milliseconds, the largest peak in megabytes above three
    times the file."""

    files: int = 0
    wrong: int = 0
    slowest: float = 0.0
    peak: float = 0.0

    def joined(self, other: Found) -> Found:
        return Found(self.files + other.files, self.wrong + other.wrong, max(self.slowest, other.slowest),
                     max(self.peak, other.peak))

    def told(self) -> dict:
        return {"files": self.files, "files_wrong": self.wrong, "slowest_ms": round(self.slowest, 1),
                "peak_mb": round(self.peak, 1)}


def files(work: Path, minutes: float, kept: Path, samples: Path | None, large: bool) -> Found:
    """All of them, in this folder; the fuzzer for so many minutes. large: files of up to 200 MB too."""
    load_lora(safetensors(work / "warm.safetensors", layers(2)))  # what every process does once
    found = Found()
    for name, make in {**SUFFIXED, **(LARGE if large else {})}.items():
        path = make(work / name)
        found = found.joined(_told(path))
        path.unlink()
    for folder in (samples, kept):
        for path in sorted(folder.rglob("*")) if folder else ():
            if path.suffix in SUFFIXES:
                found = found.joined(_told(path))
    return found.joined(fuzzed(work, minutes, kept))


def _told(path: Path) -> Found:
    of = taken(path)
    print(f"{path.name}: {of.milliseconds:.0f} ms, {of.megabytes:.1f} MB above",
          *([f"WRONG: {of.wrong}"] if of.wrong else []), flush=True)
    slowest = of.milliseconds if path.stat().st_size <= SMALL else 0.0
    return Found(1, of.wrong is not None, slowest, of.megabytes)


def fuzzed(work: Path, minutes: float, kept: Path) -> Found:
    """In a process of its own: a file that ends it is kept too, and another process goes on."""
    end, found = time.monotonic() + 60 * minutes, Found()
    while time.monotonic() < end:
        here, there = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_fuzz, args=(work, end, kept, there))
        child.start()
        there.close()
        try:
            while True:
                found = found.joined(here.recv())
        except EOFError:
            child.join()
        if child.exitcode > 0:
            raise RuntimeError("the fuzzer itself has failed; its error is above")
        if child.exitcode:  # a signal
            newest = max((path for path in work.glob("stranger.*")), key=lambda path: path.stat().st_mtime_ns)
            print("the process ended with", child.exitcode, "at",
                  keep(kept, newest.read_bytes(), newest.suffix), flush=True)
            found = found.joined(Found(1, 1))
    return found


def _fuzz(work: Path, end: float, kept: Path, there) -> None:
    turns = ((strange_safetensors(), ".safetensors"), (PICKLES, ".pt"), (strange_safetensors(), ".safetensors"))
    while time.monotonic() < end:
        for strategy, suffix in turns:
            there.send(_turn(strategy, work / f"stranger{suffix}", min(20.0, end - time.monotonic()), kept))


def _turn(strategy: st.SearchStrategy, path: Path, seconds: float, kept: Path) -> Found:
    found = Found()

    def attempt(data: bytes) -> None:
        nonlocal found
        path.write_bytes(data)
        of = attempted(path, tidy=False)
        if of.milliseconds > SLOW:
            of = taken(path)
        found = found.joined(Found(0, 0, of.milliseconds, of.megabytes))
        assert of.wrong is None, of.wrong

    def failed(data: bytes, error: BaseException) -> None:
        print("WRONG:", str(error)[:300], keep(kept, data, path.suffix), flush=True)

    tried, wrong = drive(strategy, attempt, seconds, failed)
    return replace(found, files=tried, wrong=wrong)
