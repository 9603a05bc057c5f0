"""The part of `benchmarks.hostile` that changes bytes of LoRA files as atheris chooses, by what they reach in the code.

    python -m benchmarks.hostile_bytes FOLDER SECONDS KEEP

is what `benchmarks.hostile` runs: atheris ends the process that it is in.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 20_000
"""bytes of a file"""
EVERY = 500
"""files after which it is noted how many there were"""


def is_installed() -> bool:
    return importlib.util.find_spec("atheris") is not None


def files(work: Path, minutes: float, kept: Path):
    """What was found (`hostile_files.Found`) after so many minutes; nothing where atheris is not installed."""
    from .hostile_files import Found, fuzzed

    if not is_installed():
        print("atheris is not installed: the fuzzer that knows the formats goes on in its place", flush=True)
        return fuzzed(work, minutes, kept)
    noted = work / "noted.json"
    command = (sys.executable, "-m", "benchmarks.hostile_bytes", str(work), str(60 * minutes), str(kept))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-2000:], flush=True)
    if not noted.exists():
        raise RuntimeError(f"atheris did not begin: {done.stderr[-2000:]}")
    return Found(**json.loads(noted.read_text()))


def main() -> None:
    import atheris

    work, seconds, kept = Path(sys.argv[1]), int(float(sys.argv[2])), Path(sys.argv[3])
    sys.path[:0] = [str(ROOT / "tests" / "hostile"), str(ROOT / "tests")]
    with atheris.instrument_imports(include=["sciart_ext.lora", "sciart_ext.json_text"]):
        from measuring import attempted
    from strangers import pickled

    from .hostile_fuzzing import keep

    found = {"files": 0, "wrong": 0, "slowest": 0.0, "peak": 0.0}
    seen: set[str] = set()

    def one(data: bytes) -> None:
        path = work / ("bytes.pt" if data[:2] in (b"PK", b"\x80\x02") else "bytes.safetensors")
        path.write_bytes(data)
        wrong, milliseconds, peak = attempted(path, tidy=False)
        found["slowest"], found["peak"] = max(found["slowest"], milliseconds), max(found["peak"], peak)
        found["files"] += 1
        if wrong is not None and wrong[:60] not in seen:
            seen.add(wrong[:60])
            found["wrong"] += 1
            print("WRONG:", wrong[:300], keep(kept, data, path.suffix), flush=True)
        if wrong is not None or found["files"] % EVERY == 1:
            (work / "noted.json").write_text(json.dumps(found))

    corpus = work / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate((pickled(False), pickled(True), *_examples(work))):
        (corpus / str(number)).write_bytes(data)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-rss_limit_mb=0", "-timeout=60",
                   f"-artifact_prefix={kept}/", str(corpus)], one)
    atheris.Fuzz()


def _examples(work: Path) -> list[bytes]:
    """A small file of each kind."""
    from costly import safetensors
    from strangers import KINDS, LAYERS

    path = work / "example.safetensors"
    return [safetensors(path, {f"{LAYERS[0]}.{part}": shape for part, shape in parts.items()}).read_bytes()
            for parts in KINDS.values()]


if __name__ == "__main__":
    main()
