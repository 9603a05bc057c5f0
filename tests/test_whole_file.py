"""Files that appear whole or not at all; what the system refuses is told, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from sciart_ext.combine.files import combine_files
from sciart_ext.combine.writing import write_combined
from sciart_ext.errors import SciArtError
from sciart_ext.influence.kept import KeptRuns
from sciart_ext.influence.runs import Run
from sciart_ext.lora.file import load_lora
from sciart_ext.presets import PresetStore
from sciart_ext.presets.pictures import save_thumbnail
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.infotext import save_picture
from sciart_ext.whole_file import delete, write_text, written_whole

IN_USE = PermissionError(errno.EACCES, "The process cannot access the file because it is being used by another process")

INTERRUPTED = """
import os, sys
from pathlib import Path
import filelock
from sciart_ext import whole_file

path = Path(sys.argv[1])
code = {whole_file.__file__, *map(str, Path(filelock.__file__).parent.rglob("*.py"))}
interrupts = 0

def interrupt(frame, event, argument):
    global left
    if frame.f_code.co_filename not in code or frame.f_code.co_name == "__del__":  # where Python swallows it
        return None
    left -= event == "line"
    if left == 0:
        raise KeyboardInterrupt
    return interrupt

while True:
    whole_file.write_text(path, "old")
    left = interrupts + 1
    sys.settrace(interrupt)
    try:
        whole_file.write_text(path, "new")
    except KeyboardInterrupt:
        interrupts += 1
    else:
        break
    finally:
        sys.settrace(None)
    whole_file.clear_interrupted()  # as the command line does at its end
    assert os.listdir(path.parent) == [path.name], interrupts
    assert path.read_text(encoding="utf-8") in ("old", "new")
print(interrupts)
"""


def refused_by_windows(monkeypatch, name, path):
    """`os.replace` or `os.unlink` as Windows answers for a file that another program has open."""
    done = getattr(os, name)

    def refuse(*given, **options):
        if any(isinstance(one, (str, os.PathLike)) and Path(one) == path for one in given):
            raise IN_USE
        return done(*given, **options)

    monkeypatch.setattr(os, name, refuse)


def test_a_file_has_its_text_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "text.json"
    write_text(path, "{}")
    write_text(path, "Grüße")
    assert path.read_text(encoding="utf-8") == "Grüße" and os.listdir(path.parent) == ["text.json"]


def test_an_interrupt_at_any_line_of_it_leaves_the_old_file_or_the_new_one_and_nothing_else(tmp_path):
    """In a process of its own: filelock's locks on itself stay shut where it is interrupted."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, tmp_path / "text"], cwd=Path(__file__).parents[1],
                          capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_others_may_read_it_as_any_file(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "whole", "")
    assert stat.S_IMODE((tmp_path / "whole").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_fails_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "text"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["text"]


@pytest.mark.parametrize(("error", "said"), [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device (os error 28)"),
    (OSError("cannot write mode F as PNG"), "cannot write mode F as PNG"),
])
def test_what_the_system_refuses_while_it_is_written_is_told_of_the_file(tmp_path, error, said):
    path = tmp_path / "big.safetensors"
    with pytest.raises(SciArtError) as caught, written_whole(path):
        raise error
    assert caught.value.field == "big.safetensors" and said in caught.value.message
    assert caught.value.__cause__ is error and os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SciArtError, match=r"^text: cannot be written: "):
        write_text(tmp_path / "file" / "text", "")


def test_a_file_that_another_program_has_open_is_named_with_what_to_do_and_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_text(path, "old")
    refused_by_windows(monkeypatch, "replace", path)
    with pytest.raises(SciArtError) as caught:
        write_text(path, "new")
    assert str(caught.value) == (f"text: cannot be written: {IN_USE.strerror}; accepted: close it in the program that "
                                 "has it open and try again, or another place")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["text"]


def test_a_file_in_use_that_is_to_be_deleted_is_named_too(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.touch()
    refused_by_windows(monkeypatch, "unlink", path)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: os.unlink(self))
    with pytest.raises(SciArtError, match=r"^text: cannot be deleted: .* accepted: close it"):
        delete(path)
    assert path.exists()


def test_files_and_empty_folders_are_deleted_and_what_is_not_there_is_no_matter(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder", "file", "nothing"):
        delete(tmp_path / name)
    assert os.listdir(tmp_path) == []
    with pytest.raises(SciArtError, match="cannot be deleted: Directory not empty"):
        delete(tmp_path.parent)


def a_run():
    return Run(torch.zeros(2, 4, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8).numpy())


def _combined(folder, factors=1.0):
    from safetensors.torch import save_file

    stem, path = "lora_unet_mid_block_attentions_0_proj_in", folder / "one.safetensors"
    save_file({f"{stem}.lora_down.weight": torch.full((2, 6), factors),
               f"{stem}.lora_up.weight": torch.arange(16.0).reshape(8, 2)}, path)
    recipe = parse_recipe({"loras": [{"name": "one", "weight": 1}]})
    write_combined(combine_files([load_lora(path)], recipe), folder / "out.safetensors")


def _preset(folder):
    PresetStore(folder).save("mine", {"title": "mine", "recipe": {"loras": [{"name": "one", "weight": 1}]}})


def _roles(folder):
    PresetStore(folder).bind({"child": "a"})


def _picture(folder):
    from sciart_ext.report.html_page import base64_png

    save_thumbnail(PresetStore(folder), "mine", f"data:image/png;base64,{base64_png(Image.new('RGB', (8, 8)))}")


def _kept_run(folder):
    KeptRuns(folder, "question")[3] = a_run()


def _result(folder):
    save_picture(Image.new("RGB", (8, 8)), folder / "result.png", "a rocket")


@pytest.mark.parametrize(("write", "name"), [
    (_combined, "out.safetensors"), (_preset, "presets/mine.json"), (_roles, "roles.json"),
    (_picture, "presets/mine.webp"), (_kept_run, "3.npz"), (_result, "result.png"),
], ids=["combined", "preset", "roles", "picture", "run", "result"])
def test_whatever_is_written_again_while_it_is_in_use_is_refused_by_name(tmp_path, monkeypatch, write, name):
    path = tmp_path / name
    _preset(tmp_path)
    write(tmp_path)
    before, there = path.read_bytes(), sorted(path.parent.iterdir())
    refused_by_windows(monkeypatch, "replace", path)
    with pytest.raises(SciArtError) as caught:
        write(tmp_path)
    assert caught.value.field == path.name and "close it in the program that has it open" in caught.value.message
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == there


def test_a_lora_that_was_read_can_be_replaced_by_what_is_combined_of_it(tmp_path):
    _combined(tmp_path)
    out = tmp_path / "out.safetensors"
    lora = load_lora(out)
    kept = {name: delta.up.clone() for name, delta in lora.layers.items()}
    _combined(tmp_path, 2.0)
    assert all(torch.equal(delta.up, kept[name]) for name, delta in lora.layers.items())
    assert all(not torch.equal(delta.up, kept[name]) for name, delta in load_lora(out).layers.items())
