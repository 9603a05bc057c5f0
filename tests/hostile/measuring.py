"""What the reading of a file takes: processor time, and memory above what the process had before. On Linux."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from costly import size_of
from promises import check_file

from sciart_ext.errors import SciArtError
from sciart_ext.lora import names
from sciart_ext.lora.file import inspect_lora, load_lora

LONGEST = 60
"""seconds after which a reader is ended"""
MORE_MEMORY = 4 * 2**30
"""bytes that it may ask for"""
AGAIN, ROUNDS = 150.0, 3
"""milliseconds from which on it is measured again, so many times in all, and the least taken: others are at work too"""


class Taken(NamedTuple):
    """wrong: what was not as it is promised. milliseconds: of the slower of listing and loading; megabytes: the peak
    above what the process had before and three times the file's size."""

    wrong: str | None
    milliseconds: float = 0.0
    megabytes: float = 0.0


def taken(path: Path) -> Taken:
    """In a process of its own, which the file may end."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_tell, args=(path, there))
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


def _tell(path: Path, there) -> None:
    most = memory("VmSize") + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    times, megabytes = [], 0.0
    for _ in range(ROUNDS):
        both = [measured(reader, path) for reader in (inspect_lora, load_lora)]
        times.append(max(milliseconds for milliseconds, _ in both))
        megabytes = max(megabytes, *(more for _, more in both))
        if times[0] < AGAIN:
            break
    there.send(Taken(broken(path), min(times), megabytes))


def broken(path: Path) -> str | None:
    """What `check_file` finds."""
    try:
        check_file(path)
    except BaseException as error:  # whatever comes of a stranger's file, it is told
        return f"{type(error).__name__}: {error}"[:500]
    return None


def measured(reader: Callable, path: Path) -> tuple[float, float]:
    """Milliseconds of processor time, and megabytes above three times the file."""
    names.parse_key.cache_clear()
    names.layer_name.cache_clear()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of what is resident begins anew
    before, start = memory("VmRSS"), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept = reader(path)
    except SciArtError as refusal:
        kept = refusal
    except Exception as error:  # `broken` tells it
        kept = error
    milliseconds = 1000 * (time.process_time() - start)
    megabytes = (memory("VmHWM") - before - 3 * size_of(path)) / 2**20
    del kept
    return milliseconds, max(megabytes, 0.0)


def memory(what: str) -> int:
    """Bytes of this process: VmRSS are those that are resident, VmHWM their peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{what}:")[2].split()[0])
