"""What the reading of a file takes: processor time, and memory above what the process had before. On Linux."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from pathlib import Path
from typing import NamedTuple

import torch
from costly import size_of
from promises import check_outcomes, outcome

from sciart_ext.lora import keys, names
from sciart_ext.lora.file import inspect_lora, load_lora

torch.set_num_threads(1)  # a process that is forked waits for ever for the threads of the one before
LONGEST = 60
"""seconds after which a reader is ended"""
MORE_MEMORY = 4 * 2**30
"""bytes that it may ask for"""
AGAIN, ROUNDS = 300.0, 3
"""milliseconds from which on it is measured again, so many times in all, and the least taken: others are at work too"""


class Taken(NamedTuple):
    """wrong: what was not as it is promised. milliseconds: of the slower of listing and loading; megabytes: the peak
    above what the process had before and three times the file's size."""

    wrong: str | None
    milliseconds: float = 0.0
    megabytes: float = 0.0


def taken(path: Path, rounds: int = ROUNDS) -> Taken:
    """In a process of its own, which the file may end."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_tell, args=(path, rounds, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(LONGEST) else Taken(f"it took more than {LONGEST} s")
    except EOFError:
        child.join()
        return Taken(f"the process ended ({child.exitcode})")
    finally:
        child.kill()
        child.join()


def _tell(path: Path, rounds: int, there) -> None:
    most = memory("VmSize") + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    of = attempted(path)
    for _ in range(rounds - 1):
        if of.milliseconds > AGAIN:
            again = attempted(path)
            of = Taken(of.wrong or again.wrong, min(of.milliseconds, again.milliseconds),
                       max(of.megabytes, again.megabytes))
    there.send(of)


def attempted(path: Path, tidy: bool = True) -> Taken:
    """In this process, once. tidy: what is no more needed is let go before, which takes longer than most files."""
    outcomes, milliseconds, peak = [], 0.0, 0.0
    for reader in (inspect_lora, load_lora):
        keys.parse_key.cache_clear()
        names.layer_name.cache_clear()
        if tidy:
            gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak of what is resident begins anew
        before, start = memory("VmRSS"), time.process_time()
        try:
            outcomes.append(outcome(reader, path))
        except BaseException as error:  # whatever comes of a stranger's file, it is told
            return Taken(_told(error))
        milliseconds = max(milliseconds, 1000 * (time.process_time() - start))
        peak = max(peak, (memory("VmHWM") - before - 3 * size_of(path)) / 2**20)
    try:
        check_outcomes(path, *outcomes)
    except AssertionError as error:
        return Taken(_told(error), milliseconds, peak)
    return Taken(None, milliseconds, peak)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def memory(what: str) -> int:
    """Bytes of this process: VmRSS are those that are resident, VmHWM their peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{what}:")[2].split()[0])
