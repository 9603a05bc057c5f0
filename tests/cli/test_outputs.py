"""A finished picture is kept: its place is checked before, and where saving fails after all it is saved elsewhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from PIL import Image

from sciart_ext.cli import main, outputs
from sciart_ext.errors import SciArtError
from sciart_ext.standalone.infotext import infotext, parse_infotext, read_picture, save_picture
from sciart_ext.whole_file import check_folder_place, write_text

SMALL = ["--steps", "2", "--width", "64", "--height", "64", "--device", "cpu", "--quiet"]
TEXT = infotext("a rocket, 로켓 🚀", "blurry", {"Steps": 2, "SciArt": '{"loras":[{"name":"별","weight":0.5}]}'})


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "JPG"])
def test_every_format_keeps_the_infotext(tmp_path, ending):
    path = save_picture(Image.new("RGBA", (32, 24), (200, 30, 30, 255)), tmp_path / f"x.{ending}", TEXT)
    with Image.open(path) as picture:
        assert picture.format == {"png": "PNG", "webp": "WEBP"}.get(ending, "JPEG") and picture.size == (32, 24)
    assert read_picture(path) == parse_infotext(TEXT)


def test_the_user_comment_is_as_the_host_writes_it(tmp_path):
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "x.jpg", TEXT)
    with Image.open(path) as picture:
        assert picture.getexif().get_ifd(0x8769)[0x9286] == b"UNICODE\0" + TEXT.encode("utf-16-be")


def test_a_picture_without_infotext_has_no_fields(tmp_path):
    for ending in ("png", "jpg", "webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"x.{ending}")
        assert read_picture(tmp_path / f"x.{ending}") == {}


def test_an_infotext_too_long_for_a_jpeg_is_refused_and_kept_as_a_png(tmp_path):
    picture, text = Image.new("RGB", (8, 8)), "x" * 40_000 + "\nSteps: 2"
    with pytest.raises(SciArtError, match=r"a JPEG has room for 65533; accepted: \.png or \.webp"):
        save_picture(picture, tmp_path / "x.jpg", text)
    with pytest.raises(SciArtError, match=r"a JPEG has room.*; it is kept as .*x\.png"):
        outputs.keep(tmp_path / "x.jpg", lambda path: save_picture(picture, path, text))
    assert read_picture(tmp_path / "x.png") and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("in_the_way", ["folder", "file instead of the folder", "deleted folder"])
def test_what_comes_in_the_way_of_a_finished_file(tmp_path, monkeypatch, in_the_way):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "out" / "picture.png"
    outputs.check_file(place, (".png",))
    if in_the_way == "folder":
        place.mkdir(parents=True)
    elif in_the_way == "file instead of the folder":
        place.parent.write_text("", encoding="utf-8")
    if in_the_way == "deleted folder":
        outputs.keep(place, lambda path: write_text(path, "done"))
        kept = place
    else:
        with pytest.raises(SciArtError, match=r"picture\.png: cannot be written: .*; it is kept as ") as refused:
            outputs.keep(place, lambda path: write_text(path, "done"))
        kept = Path(str(refused.value).partition("it is kept as ")[2])
    assert kept.read_text(encoding="utf-8") == "done"


def test_nothing_that_is_there_is_replaced_by_what_is_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "picture.png"
    place.mkdir()
    (tmp_path / "picture-2.png").write_text("another's", encoding="utf-8")
    with pytest.raises(SciArtError, match=r"it is kept as .*picture-3\.png"):
        outputs.keep(place, lambda path: write_text(path, "done"))
    assert (tmp_path / "picture-2.png").read_text(encoding="utf-8") == "another's"


def test_where_nothing_can_be_written_the_first_refusal_is_told(tmp_path):
    def refuse(path: Path) -> None:
        raise SciArtError(path.name, "no")

    with pytest.raises(SciArtError, match=r"^picture\.png: no$"):
        outputs.keep(tmp_path / "picture.png", refuse)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="no permissions here")
def test_a_folder_that_may_not_be_written_into_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SciArtError, match="cannot be written: Permission denied"):
        outputs.check_file(tmp_path / "picture.png", (".png",))


def test_more_than_there_is_room_for_is_refused(tmp_path):
    for check in (lambda: outputs.check_file(tmp_path / "x.png", (".png",), size=2**60),
                  lambda: check_folder_place(tmp_path / "x", size=2**60)):
        with pytest.raises(SciArtError, match="cannot be written: No space left on device; accepted: more room"):
            check()
    assert not list(tmp_path.iterdir())


def test_several_pictures_have_their_seeds_in_their_names_and_infotexts(tmp_path, monkeypatch, capsys, one_thread):
    pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    asked = ["generate", "--prompt", "a rocket", "--lora", "child=0.5", *SMALL]
    assert main([*asked, "--seed", "5", "--count", "2", "--batch", "2", "--out", "many/x.webp"]) == 0
    names = [f"x-{seed}.webp" for seed in (5, 6, 7, 8)]
    assert sorted(path.name for path in Path("many").iterdir()) == names
    assert [read_picture(Path("many") / name)["Seed"] for name in names] == ["5", "6", "7", "8"]
    assert capsys.readouterr().out.count("x-") == 4
    assert main([*asked, "--seeds", "6,8", "--out", "few/x.png"]) == 0
    assert main([*asked, "--seed", "6", "--out", "one.png"]) == 0
    assert sorted(path.name for path in Path("few").iterdir()) == ["x-6.png", "x-8.png"]
    assert Image.open("few/x-6.png").tobytes() == Image.open("one.png").tobytes()


def test_an_interrupt_between_pictures_keeps_those_that_are_made(tmp_path, monkeypatch, capsys, one_thread):
    pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    from sciart_ext.standalone import generate as engine

    calls, make = [], engine.generate_batch

    def second_is_interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(engine, "generate_batch", second_is_interrupted)
    assert main(["generate", "--prompt", "a rocket", *SMALL, "--seeds", "1-3"]) == 130
    assert capsys.readouterr().err == "sciart: interrupted: 1 of 3 pictures are made\n"
    assert [path.name for path in tmp_path.iterdir()] == ["sciart-1.png"]


def in_the_way(place: Path):
    """A progress during which a folder comes into the place of the result."""
    def progress(what: str, quiet: bool = False):
        return contextlib.nullcontext(lambda done, of: place.mkdir(parents=True, exist_ok=True))
    return progress


@pytest.mark.parametrize(("words", "name"), [
    (["generate", "--prompt", "a rocket", *SMALL], "x.jpg"),
    (["combine", "child=0.5", "watercolor=0.5"], "x.safetensors"), (["geometry", "child", "watercolor"], "x.html"),
], ids=lambda given: given[0] if isinstance(given, list) else "")
def test_a_command_keeps_what_it_finished_and_tells_where(tmp_path, monkeypatch, capsys, one_thread, words, name):
    pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"sciart_ext.cli.{words[0]}.progress", in_the_way(tmp_path / name))
    assert main([*words, "--out", name]) == 2
    told = capsys.readouterr().err
    kept = Path(f"{Path(name).stem}-2{Path(name).suffix}")
    assert told.startswith(f"sciart: {name}: cannot be written: ") and told.endswith(f"; it is kept as {kept}\n")
    assert kept.stat().st_size > 500 and (tmp_path / name).is_dir()


def test_without_a_name_nothing_that_is_there_is_replaced(tmp_path, monkeypatch, capsys, one_thread):
    pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    for words in ([], [], ["--seeds", "2,3"], ["--seeds", "3,4"]):
        assert main(["generate", "--prompt", "a rocket", *SMALL, *words]) == 0
    for _ in range(2):
        assert main(["combine", "child=0.5", "--quiet"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "combined-2.safetensors", "combined.safetensors", "sciart-2-2.png", "sciart-2-3.png", "sciart-2.png",
        "sciart-3.png", "sciart-4.png", "sciart.png"]
