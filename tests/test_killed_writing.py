"""Files written by real processes: killed, at once, without room, with a umask; nothing half, nothing left or lost."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sciart_ext.errors import SciArtError
from sciart_ext.whole_file import NoRoomError, check_name, one_at_a_time, sweep, write_text, written_whole

ROOT = Path(__file__).parents[1]
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals, umask and limits of POSIX")
PATIENCE = 60
HANGS = """
import sys, time
from pathlib import Path
from sciart_ext.whole_file import written_whole
with written_whole(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def program(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing `text` over an old one."""
    write_text(tmp_path / "text", "old")
    process = program(HANGS, tmp_path / "text")
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_process_has_left_is_taken_away_at_the_next_save(tmp_path, writer):
    assert len(os.listdir(tmp_path)) == 3  # the old file, the new one that is half written, and its lock
    writer.kill()
    writer.wait(PATIENCE)
    assert (tmp_path / "text").read_text() == "old" and len(os.listdir(tmp_path)) == 3
    write_text(tmp_path / "other", "")
    assert sorted(os.listdir(tmp_path)) == ["other", "text"]


def test_what_another_process_writes_right_now_stays(tmp_path, writer):
    before = set(os.listdir(tmp_path))
    write_text(tmp_path / "other", "")
    sweep(tmp_path)
    assert set(os.listdir(tmp_path)) == {*before, "other"}


def test_what_another_thread_writes_right_now_stays(tmp_path):
    with written_whole(tmp_path / "text") as temporary:
        temporary.write_text("new")
        write_text(tmp_path / "other", "")
        assert temporary.read_text() == "new"
    assert (tmp_path / "text").read_text() == "new" and sorted(os.listdir(tmp_path)) == ["other", "text"]


def test_whoever_has_a_folder_to_himself_sweeps_it(tmp_path, writer):
    writer.kill()
    writer.wait(PATIENCE)
    with one_at_a_time(tmp_path):
        assert not [name for name in os.listdir(tmp_path) if ".sciart.tmp" in name]


def test_a_lock_whose_file_is_gone_is_taken_away_too(tmp_path):
    (tmp_path / "text.0123456789abcdef.sciart.tmp.lock").touch()
    (tmp_path / "others.tmp").touch()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["others.tmp"]


@POSIX
def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    code = """
import os, sys, torch
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from sciart_ext.standalone.infotext import save_picture
from sciart_ext.whole_file import write_text, written_whole
os.umask(0o027)
folder = Path(sys.argv[1])
write_text(folder / "text", "")
save_picture(Image.new("RGB", (8, 8)), folder / "picture.png", "")
with written_whole(folder / "tensors.safetensors") as temporary:
    save_file({"a": torch.zeros(2)}, temporary)
with written_whole(folder / "own") as temporary:  # as a writer does that makes a file of its own there
    (folder / "made").touch(0o600)
    os.replace(folder / "made", temporary)
"""
    assert ended(program(code, tmp_path))[0] == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("text", "picture.png", "tensors.safetensors", "own"), 0o640)


WRITERS = {
    "text": "write_text(path, 'x' * 100_000)",
    "tensors": "save_combined(path)",
    "picture": "save_picture(Image.effect_noise((256, 256), 80), path, '')",
    "run": "_write(path, Run(torch.rand(2, 4, 64, 64), np.zeros((512, 512, 3), np.uint8)))",
}


@pytest.fixture(scope="module")
def on_a_full_disk(tmp_path_factory):
    """By writer, its folder with an old file, which it has tried to replace, and what it said."""
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    code = """
import resource, sys, torch
import numpy as np
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from sciart_ext.influence.kept import _write
from sciart_ext.influence.runs import Run
from sciart_ext.standalone.infotext import save_picture
from sciart_ext.whole_file import NoRoomError, write_text, written_whole
def save_combined(path):
    with written_whole(path) as temporary:
        save_file({"a": torch.zeros(100_000)}, temporary)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
"""
    for number, (name, write) in enumerate(WRITERS.items(), 1):
        write_text(folders[name] / "file.png", "old")
        code += f"""
path = Path(sys.argv[{number}]) / "file.png"
try:
    {write}
    print()
except NoRoomError as error:
    print(error)
"""
    status, out, err = ended(program(code, *folders.values()))
    assert (status, err, out.count("\n")) == (0, "", len(WRITERS)), out
    return dict(zip(WRITERS, zip(folders.values(), out.splitlines())))


@POSIX
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_and_leaves_the_old_file(on_a_full_disk, name):
    folder, told = on_a_full_disk[name]
    assert told.startswith("file.png: cannot be written: ")
    assert (folder / "file.png").read_text() == "old" and os.listdir(folder) == ["file.png"]


@pytest.mark.parametrize("name", ["con", "CON", "nul.json", "Aux.tar.gz", "com1", "LPT9.webp", "com².png", "prn .txt",
                                  "conin$", "end.", "end ", "a. .", "..."])
def test_names_that_windows_reserves_or_changes_are_refused_everywhere(tmp_path, name):
    with pytest.raises(SciArtError, match="accepted: another name"):
        write_text(tmp_path / "new" / name, "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["console", "com", "com10", "lpt", "nul_.json", "acon", ".con", "my con.png", "a.nul"])
def test_names_that_only_look_so_are_accepted(name):
    check_name(name, "name")


def test_a_name_that_differs_from_another_file_s_only_by_case_is_refused_everywhere(tmp_path):
    write_text(tmp_path / "Ärger.json", "old")
    with pytest.raises(SciArtError, match=r"'Ärger\.json' is there, which is the same name on Windows"):
        write_text(tmp_path / "ärger.json", "new")
    write_text(tmp_path / "Ärger.json", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("Ärger.json", "new")]


def test_names_as_long_as_the_system_allows_are_written(tmp_path):
    path = tmp_path / f"{'수' * 83}.json"
    write_text(path, "")
    assert os.listdir(tmp_path) == [path.name]


def test_one_process_at_a_time_is_in_a_block(tmp_path):
    code = """
import sys
from pathlib import Path
from sciart_ext.whole_file import one_at_a_time
folder = Path(sys.argv[1])
for _ in range(10):
    with one_at_a_time(folder):
        there = folder / "there"
        there.touch(exist_ok=False)
        there.unlink()
"""
    assert [ended(one)[::2] for one in [program(code, tmp_path) for _ in range(4)]] == [(0, "")] * 4
    with one_at_a_time(tmp_path):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_a_device_that_is_full_is_no_room(tmp_path):
    with pytest.raises(NoRoomError), written_whole(tmp_path / "text"):
        with open("/dev/full", "w") as file:
            file.write("x")
    assert os.listdir(tmp_path) == []


WRITING = {"write_text", "write_bytes", "save_file", "savez", "savez_compressed"}


def loose(tree, inside=False):
    """Lines that write a file outside of `with written_whole(…)`."""
    for node in ast.iter_child_nodes(tree):
        within = inside or (isinstance(node, ast.With) and "written_whole" in ast.unparse(node.items[0]))
        if isinstance(node, ast.Call) and not within:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            ours = name == "write_text" and isinstance(node.func, ast.Name)
            in_memory = name.startswith("savez") and ast.unparse(node.args[0]) == "data"
            modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            opened = name == "open" and set("wax+") & set("".join(mode for mode in modes if len(mode) < 4))
            if (name in WRITING and not ours and not in_memory) or opened:
                yield node.lineno
        yield from loose(node, within)


def test_whatever_is_written_is_written_whole():
    files = [path for path in (ROOT / "sciart_ext").rglob("*.py") if path.name != "whole_file.py"]
    trees = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    assert {name: lines for name, tree in trees.items() if (lines := list(loose(tree)))} == {}
    assert list(loose(ast.parse("path.write_text('x')"))) == list(loose(ast.parse("open(path, 'w')"))) == [1]
