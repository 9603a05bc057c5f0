"""How long SciArt's import takes, in the WebUI's start and on the command line, and how soon commands answer, beside
another checkout's.

    python -m benchmarks.start [--before FOLDER] [--rounds 5] [--quick]

`webui`, `command_line`: seconds as `python -X importtime` tells them, of all modules of SciArt and what they are the
first to import. `answers`: from the start of the process to its end, by the clock and of the processor, of commands
that read no model. Both checkouts take turns; medians. The WebUI is the one that SCIART_WEBUI names; without one its
part is null. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.host.server import SCIART, HostServer, is_installed, webui_folder

from . import record

LINE = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \|( +)([\w.]+)$", re.M)
ENV = {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONDONTWRITEBYTECODE": ""}
"""as users start it: what was compiled at one start is there at the next"""
COMMAND = ("-m", "sciart_ext", "plan", "--help")
ANSWERS = {"help": ["--help"], "version": ["--version"], "plan": ["plan", "--lora", "child=0.2@0, 0.65@0.5"],
           "presets": ["presets", "list"], "generate_help": ["generate", "--help"],
           "misspelt_lora": ["generate", "--prompt", "a rocket", "--lora", "chld=0.8"]}


def main() -> None:
    options = arguments()
    folders = {"now": SCIART, **({"before": options.before.resolve()} if options.before else {})}
    rounds = 1 if options.quick else options.rounds
    for folder in folders.values():  # compiles what has not been
        in_webui(folder)
        on_command_line(folder)
    taken = {name: {"webui": [], "command_line": []} for name in ("now", "before")}
    answered = {name: {command: [] for command in ANSWERS} for name in ("now", "before")}
    for number in range(rounds):
        for name in list(folders)[::1 if number % 2 else -1]:
            found = {"webui": in_webui(folders[name]), "command_line": on_command_line(folders[name])}
            print(f"round {number + 1} of {rounds}", name, found, flush=True)
            for part, one in found.items():
                if one is not None:
                    taken[name][part].append(one)
            for command, words in ANSWERS.items():
                answered[name][command].append(answer(folders[name], words))
    result = {"machine": record.machine(), "commit": record.commit(), "rounds": rounds, **{
        part: {name: {"seconds": middle(taken[name][part], "seconds"), "modules": middle(taken[name][part], "modules")}
               for name in taken} for part in ("webui", "command_line")}, "answers": {
        command: {name: {"seconds": middle(answered[name][command], "seconds"),
                         "processor_seconds": middle(answered[name][command], "processor_seconds")}
                  for name in taken} for command in ANSWERS}}
    if not options.quick:
        print("kept in", record.write("start", result))
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout of SciArt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round; nothing is kept")
    return parser.parse_args()


def middle(taken: list[dict], what: str) -> float | None:
    return round(statistics.median(one[what] for one in taken), 4) if taken else None


def in_webui(folder: Path) -> dict | None:
    """In the start of a WebUI without a page and without a checkpoint."""
    webui = webui_folder()
    if not is_installed(webui):
        return None
    with HostServer(models=SCIART / "tests" / "kept", extensions={"sciart": folder}, env=ENV, webui=webui,
                    args=("--skip-load-model-at-start",)) as server:
        return imports(server.log())


def on_command_line(folder: Path) -> dict:
    done = subprocess.run([sys.executable, *COMMAND], cwd=folder, env={**os.environ, **ENV}, check=True,
                          capture_output=True, text=True)
    return imports(done.stderr)


def answer(folder: Path, words: list[str]) -> dict:
    """Seconds of a command from its start to its end."""
    before, started = os.times(), time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "sciart_ext", *words], cwd=place, check=False, capture_output=True,
                       env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": ""})
    seconds, after = time.perf_counter() - started, os.times()
    of_processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "processor_seconds": of_processor}


def imports(told: str) -> dict:
    """Seconds of SciArt's modules with what they import first, and their number."""
    found = list(outermost(told))
    return {"seconds": sum(found) / 1e6, "modules": sum(is_ours(name) for *_, name in LINE.findall(told))}


def outermost(told: str) -> Iterator[int]:
    """Microseconds of the modules of ours that none of ours imports. A module is told after those that it imports."""
    above: list[tuple[int, bool]] = []
    for _, cumulative, indent, name in reversed(LINE.findall(told)):
        while above and above[-1][0] >= len(indent):
            above.pop()
        if is_ours(name) and not any(ours for _, ours in above):
            yield int(cumulative)
        above.append((len(indent), is_ours(name)))


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "sciart_ext"


if __name__ == "__main__":
    main()
