"""Files that appear whole or not at all: readers see the old one or the new one. What the system refuses is told.

A file is written beside its place, under a name of its own, and put there at the end. Who writes holds a lock on a file
beside it, which the system lets go of when a process ends, however it ends: so the next who writes into the folder
knows left-overs from files in work, and takes them away.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from .errors import SciArtError, shown

if TYPE_CHECKING:
    from filelock import BaseFileLock

_ENDING, _LOCK = ".sciart.tmp", ".lock"
_TRIES = 5
_SECONDS = 60
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_FULL = {39, 112} if os.name == "nt" else {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$",
             *(f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹²³")}
_own_threads = threading.Lock()
_in_work: dict[Path, BaseFileLock | None] = {}
"""the temporary files of this process, and the lock on each"""


class NoRoomError(SciArtError):
    """The disk is full, or the system allows no larger file."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write into, which takes its place at the end; what fails on the way leaves nothing.

    Folders on the way are made, what killed processes have left in the folder is taken away, and the file has the
    permissions of any new file. Raises `SciArtError` where it cannot be written or put in its place (on Windows no file
    can be replaced that another program has open), for a name that not every system allows, and for one that differs
    from another file's only by case; `NoRoomError` where the disk is full.
    """
    path = Path(path)
    check_name(path.name, path.name)
    with _refusing(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_case(path, path.name)
        sweep(path.parent)
        with _temporary(path) as temporary:
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)  # some writers make a file of their own there
            os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes the file, UTF-8, whole or not at all. Raises `SciArtError`."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_file_place(path: Path, size: int = 1) -> None:
    """Refuses, before any work, a file of so many bytes that could not be written: a folder in its place, a file on the
    way to it, a name that the system does not take, no permission, no room. Raises as `written_whole` does."""
    check_name(path.name, path.name)
    with _refusing(path, "written"):
        if _is_folder(path):
            raise SciArtError(path.name, "is a folder; accepted: a file's name")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        check_case(path, path.name)
        _check_room(path.parent, size)


def check_folder_place(path: Path, size: int = 1) -> None:
    """The same for files in a folder, which may be there or not."""
    check_name(path.name, path.name)
    with _refusing(path, "written"):
        if _is_folder(path) is False:
            raise SciArtError(path.name, "is a file; accepted: a folder")
        _check_room(path, size)


def clear_interrupted() -> None:
    """Takes away what an interrupt has left of this process's own files: one that came while they were taken away."""
    for temporary in tuple(_in_work):
        _clear(temporary)


def delete(path: Path) -> None:
    """Deletes a file where it is there, or an empty folder. Raises `SciArtError` where that cannot be done."""
    with _refusing(path, "deleted"):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def check_name(name: str, field: str) -> None:
    """Refuses, on every system, a file's name that Windows reserves or changes."""
    if name.partition(".")[0].rstrip(" ").upper() in _RESERVED:
        raise SciArtError(field, f"{shown(name)} is a name that Windows keeps for a device; accepted: another name")
    if name.endswith((".", " ")):
        raise SciArtError(field, f"{shown(name)} ends in a dot or a space, which Windows leaves out; accepted: another "
                                 "name")


def check_case(path: Path, field: str) -> None:
    """Refuses, on every system, a file beside which there is one whose name differs only by case."""
    if not path.parent.is_dir():
        return
    for name in os.listdir(path.parent):
        if name != path.name and name.lower() == path.name.lower():
            raise SciArtError(field, f"{shown(name)} is there, which is the same name on Windows; accepted: another "
                                     "name, or rename that file")


def sweep(folder: Path) -> None:
    """Takes away what killed processes have left of files in this folder, but nothing that is being written.

    On a file system without locks nobody can tell them apart, and left-overs stay.
    """
    endings = (_ENDING, _ENDING + _LOCK)
    for left in sorted({folder / name.removesuffix(_LOCK) for name in os.listdir(folder) if name.endswith(endings)}):
        try:
            lock = _taken(_lock_of(left), 0)
            if lock is None:
                return
            try:
                left.unlink(missing_ok=True)
            finally:
                _let_go(lock, _lock_of(left))
        except OSError:  # it is being written right now, or is another user's, who sweeps it
            continue


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets no other thread and no other process into the same block for this folder, which is swept before. Raises
    `SciArtError` where it cannot be written into, or another is in the block for a minute.

    On a file system without locks other processes are not kept out: two that save at once are rarer than such folders.
    """
    path = folder / _LOCK
    with _own_threads:
        with _refusing(folder, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = _taken(path, _SECONDS)
            except TimeoutError:
                raise SciArtError(folder.name, "another SciArt saves there right now; accepted: try again") from None
        try:
            sweep(folder)
            yield
        finally:
            if lock is not None:
                lock.release()  # its file stays: others may be waiting for it


def _is_folder(path: Path) -> bool | None:
    """None where there is nothing."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return None


def _check_room(folder: Path, size: int) -> None:
    """Writes into the folder, or the first above it that is there, what is gone when it returns. Raises `OSError`."""
    while _is_folder(folder) is None:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(min(size, 2**20)))
        probe.flush()
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, locked."""
    temporary = path.with_name(f"{path.name[:32]}.{secrets.token_hex(8)}{_ENDING}")
    _in_work[temporary] = None
    try:
        for _ in range(_TRIES):
            try:
                lock = _in_work[temporary] = _taken(_lock_of(temporary), 1)
            except TimeoutError:  # nobody knows of it yet: so old versions of filelock tell of no locks
                lock = None
            if lock is None or _lock_of(temporary).exists():
                break
            lock.release()  # swept before it was locked
        temporary.touch(exist_ok=False)
        yield temporary
    finally:
        _clear(temporary)


def _clear(temporary: Path) -> None:
    if temporary in _in_work:  # or `clear_interrupted` was here before
        temporary.unlink(missing_ok=True)
        _let_go(_in_work[temporary], _lock_of(temporary))
        _in_work.pop(temporary, None)


def _lock_of(temporary: Path) -> Path:
    return temporary.with_name(temporary.name + _LOCK)


def _taken(path: Path, seconds: float) -> BaseFileLock | None:
    """The lock on a file, which is made for it; None where the file system has no locks. Raises `OSError`, also where
    it is not free within the time."""
    from filelock import FileLock  # takes a fifth of a second

    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=seconds)
        return lock
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    path.unlink(missing_ok=True)
    return None


def _let_go(lock: BaseFileLock | None, path: Path) -> None:
    if lock is not None:
        lock.release()
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # on Windows, where one who sweeps has it open: who takes it away
        pass


@contextmanager
def _refusing(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise SciArtError(path.name, f"cannot be {done}: {error.strerror}; accepted: close it in the program that has "
                                     "it open and try again, or another place") from error
    except (OSError, SafetensorError) as error:
        told = getattr(error, "strerror", None) or error
        if is_full(error):
            raise NoRoomError(path.name, f"cannot be {done}: {told}; accepted: more room on the disk, or another "
                                         "place") from error
        raise SciArtError(path.name, f"cannot be {done}: {told}") from error


def is_full(error: BaseException) -> bool:
    """Whether the system refused for want of room."""
    told = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors tells it
    number = getattr(error, "winerror", None) or getattr(error, "errno", None) or (told and int(told[1]))
    return number in _FULL or getattr(error, "errno", None) == errno.ENOSPC
