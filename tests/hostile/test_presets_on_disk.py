"""A user's folder of presets in which anything may lie: each file that is wrong is one line, the others are there."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sciart_ext.errors import SciArtError
from sciart_ext.presets import PresetStore, resolve
from sciart_ext.presets.check import (
    MOST_BYTES,
    MOST_DESCRIPTION,
    MOST_NAME,
    MOST_PROMPT,
    MOST_PROMPTS,
    MOST_ROLES,
    MOST_TITLE,
)
from sciart_ext.presets.pictures import listed_with_pictures, save_thumbnail, webp_size
from sciart_ext.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
RECIPE = {"loras": [{"name": "a", "weight": 0.5}]}
GOOD = {"title": "Good", "recipe": RECIPE}
LONG = 10**5
ROLE = {"loras": [{"role": "child", "weight": 1}]}

FILES = {
    "nothing": b"", "no-json": b"{", "a-list": b"[]", "a-text": b'"x"', "null": b"null", "a-number": b"1",
    "deep-lists": b"[" * LONG, "deep-objects": b'{"a":' * LONG, "deep-whole": b"[" * 500 + b"]" * 500,
    "no-utf8": b'{"title": "\xff"}', "utf16": '{"recipe": {}}'.encode("utf-16"), "zeros": bytes(1000),
    "half-a-character": json.dumps({**GOOD, "title": "\ud800"}).encode(),
    "half-a-key": b'{"recipe": {"loras": [{"name": "a", "weight": 1}]}, "\\ud800": 1}',
    "nan": b'{"recipe": {"loras": [{"name": "a", "weight": NaN}]}}',
    "infinite": b'{"recipe": {}, "txt2img": {"seed": 1e999}}',
    "many-digits": b'{"recipe": {"loras": [{"name": "a", "weight": ' + b"9" * LONG + b"}]}}",
    "too-large": b'{"title": "' + b"a" * MOST_BYTES + b'"}', "many": b"[" + b"0," * 400_000 + b"0]",
    "no-recipe": b"{}", "lines": json.dumps({"\n\x1b[2J": 1}).encode(),
}
WRONG = {
    "title": [5, None, [], {}, "x" * (MOST_TITLE + 1)], "description": [5, None, ["x"], "x" * (MOST_DESCRIPTION + 1)],
    "recipe": [5, None, [], "x", {}, {"loras": {}}, {"loras": [5]}, {"loras": [[]]}, {"loras": None},
               {"loras": [{"role": 5, "weight": 1}]}, {"loras": [{"name": ["a"], "weight": 1}]},
               {"loras": [{"role": "x" * (MOST_NAME + 1), "weight": 1}]},
               {"loras": [{"name": "a", "weight": float("nan")}]},
               {"loras": [{"name": "a", "weight": 1, "blocks": {"mid": {}}}]},
               {"enabled": False, "loras": [{"role": 5}]},
               {**RECIPE, "roles": {"a": 5}}, {**RECIPE, "roles": []}, {"preset": "science-imagination"}],
    "txt2img": [5, [], {"steps": "20"}, {"steps": True}, {"steps": None}, {"seed": 1.5}, {"seed": []},
                {"cfg_scale": "7"}, {"cfg_scale": float("nan")},
                {"width": 512.0}, {"height": {}}, {"sampler_name": 5}, {"scheduler": []},
                {"enable_hr": 1}, {"hr_scale": True}, {"hr_upscaler": {}}, {"hr_second_pass_steps": "x"},
                {"denoising_strength": float("inf")}, {"override_settings": []},
                {"override_settings": {"a": {"b": {}}}}, {"override_settings": {"a": float("inf")}},
                {"prompt": ["x"]}, {"negative_prompt": 5},
                {"prompt": "x" * (MOST_PROMPT + 1)}, {"unknown": 1}],
    "prompts": [5, {}, "x", [5], [None], ["x" * (MOST_PROMPT + 1)], ["x"] * (MOST_PROMPTS + 1)],
    "pipeline": [5, None, [], {"upscale": 5}, {"unknown": {}}, {"controlnet": {"pose": 5}}],
}
ALL_WRONG = [(field, value) for field, values in WRONG.items() for value in values]


@pytest.fixture
def store(tmp_path):
    store = PresetStore(tmp_path)
    store.save("good", GOOD)
    return store


def folder(store):
    return store.user_dir / "presets"


def lines(store):
    """What is listed of the user's own: name to error, None for those that can be used."""
    listed = store.listed()
    json.dumps(listed, ensure_ascii=False).encode("utf-8")
    for preset in listed:
        assert "\n" not in preset.get("error", "") and len(preset.get("error", "")) < 1000
    return {preset["name"]: preset.get("error") for preset in listed if not preset["builtin"]}


def test_whatever_a_file_holds_is_one_line_and_the_others_are_there(store):
    for name, data in FILES.items():
        (folder(store) / f"{name}.json").write_bytes(data)
    told = lines(store)
    assert set(told) == {"good", *FILES} and [name for name, error in told.items() if not error] == ["good"]
    assert "good" in store.names() and not set(FILES) & set(store.names())
    for name in FILES:
        with pytest.raises(SciArtError) as caught:
            store.read(name)
        assert caught.value.field == "preset" and f"{name}.json" in caught.value.message


@pytest.mark.parametrize(("field", "value"), ALL_WRONG, ids=[f"{field}-{i}" for i, (field, _) in enumerate(ALL_WRONG)])
def test_a_field_of_another_type_or_beyond_its_limit_is_refused_when_it_is_read_and_when_it_is_saved(
        store, field, value):
    data = {**GOOD, field: value}
    with pytest.raises(SciArtError) as caught:
        store.save("bad", data)
    assert caught.value.field.partition(".")[0].partition("[")[0] == field and not (folder(store) / "bad.json").exists()
    (folder(store) / "bad.json").write_text(json.dumps(data), encoding="utf-8")
    assert lines(store)["bad"] and lines(store)["good"] is None


def test_what_is_at_its_limit_is_saved_and_listed(store):
    prompts = ["p" * 1000] * MOST_PROMPTS
    store.save("full", {"title": "t" * MOST_TITLE, "description": "d" * MOST_DESCRIPTION, "prompts": prompts,
                        "recipe": {"loras": [{"role": "r" * MOST_NAME, "weight": 1}]},
                        "txt2img": {"prompt": "p" * MOST_PROMPT, "override_settings": {"a": [1, "b", None, True]}}})
    assert lines(store) == {"full": None, "good": None}


def test_what_could_not_be_read_again_for_its_size_is_not_saved(store):
    with pytest.raises(SciArtError, match=rf"^preset: \d+ bytes; accepted: at most {MOST_BYTES}"):
        store.save("large", {**GOOD, "prompts": ["수" * MOST_PROMPT] * 20})
    assert lines(store) == {"good": None}


PIECES = [b"", b"[", b"}", b"null", b"-1e400", b'"', b"\xff", b"5"]


def test_whatever_is_made_of_a_preset_by_chance_is_a_preset_or_a_line(store):
    chance = random.Random(7)
    whole = json.dumps(store.read("two-subjects").data, ensure_ascii=False).encode()
    path = folder(store) / "chance.json"
    listed = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at:at + chance.randrange(4)] = chance.choice(PIECES)
        path.write_bytes(bytes(data))
        listed += lines(store)["chance"] is None
        assert lines(store)["good"] is None
    assert 0 < listed < 150


def test_a_mark_of_utf8_at_the_beginning_as_windows_writes_it_is_no_matter(store):
    (folder(store) / "windows.json").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert lines(store)["windows"] is None


@pytest.mark.parametrize("name", ["ABC", "con", "nul", "com1", "lpt9", "a b", "end.", "end ", ".hidden", "수", "a" * 65,
                                  "-a"])
def test_files_that_are_not_named_as_presets_are_one_line_each_and_can_be_deleted(store, name):
    (folder(store) / f"{name}.json").write_text(json.dumps(GOOD), encoding="utf-8")
    assert "accepted: " in lines(store)[name] and lines(store)["good"] is None
    with pytest.raises(SciArtError) as caught:
        store.save(name, GOOD)
    assert caught.value.field == "name"
    with pytest.raises(SciArtError):
        store.read(name)
    store.delete(name)
    assert lines(store) == {"good": None}


def test_a_name_that_lies_there_in_other_letters_is_not_saved_beside(store):
    (folder(store) / "ABC.json").write_text(json.dumps(GOOD), encoding="utf-8")
    with pytest.raises(SciArtError, match=r"^name: 'ABC\.json' is there"):
        store.save("abc", GOOD)
    (folder(store) / "good.JSON").write_text("{}", encoding="utf-8")
    with pytest.raises(SciArtError, match=r"^name: 'good\.JSON' is there"):
        store.save("good", GOOD)
    assert store.read("good").data["title"] == "Good"


@pytest.mark.parametrize("name", ["science-imagination", "Science-Imagination"])
def test_a_file_that_is_named_as_a_shipped_preset_is_a_line_and_the_shipped_one_is_used(store, name):
    shipped = store.read("science-imagination")
    (folder(store) / f"{name}.json").write_text(json.dumps(GOOD), encoding="utf-8")
    assert lines(store)[name] and store.read("science-imagination") == shipped
    assert store.names().count("science-imagination") == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows, names are Unicode there")
class TestOnPosix:
    def test_links_out_of_the_folder_pipes_folders_and_devices_are_lines(self, store, tmp_path):
        outside = tmp_path / "outside.json"
        outside.write_text(json.dumps({**GOOD, "title": "secret"}), encoding="utf-8")
        for name, target in (("out", outside), ("device", "/dev/zero"), ("nowhere", "nothing"),
                             ("circle", "circle.json")):
            (folder(store) / f"{name}.json").symlink_to(target)
        (folder(store) / "inside.json").symlink_to("good.json")
        (folder(store) / "a-folder.json").mkdir()
        os.mkfifo(folder(store) / "pipe.json")
        told = lines(store)
        assert {name for name, error in told.items() if error is None} == {"good", "inside"}
        assert set(told) == {"good", "inside", "out", "device", "nowhere", "circle", "a-folder", "pipe"}
        assert "secret" not in str(told) and "a link to another folder" in told["out"]
        store.save("out", GOOD)
        assert json.loads(outside.read_text())["title"] == "secret" and lines(store)["out"] is None

    def test_a_name_of_bytes_that_are_no_text_is_a_line(self, store):
        (Path(os.fsdecode(os.fsencode(folder(store)) + b"/\xff\n.json"))).write_text("{}")
        (name,) = set(lines(store)) - {"good"}
        store.delete(name)
        assert lines(store) == {"good": None}

    def test_thumbnails_stay_in_their_folder(self, store, tmp_path):
        picture = tmp_path / "private.webp"
        private = webp((8, 8))
        picture.write_bytes(private)
        (folder(store) / "good.webp").symlink_to(picture)
        assert "a link to another folder" in thumbnails(store)["good"][1] and thumbnails(store)["good"][0] is None
        save_thumbnail(store, "good", png((8, 8)))
        assert thumbnails(store)["good"][1] == "" and picture.read_bytes() == private

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to root")
    def test_a_folder_that_may_not_be_read_is_a_line(self, store):
        folder(store).chmod(0)
        try:
            assert "cannot be read" in lines(store)["presets"] and "science-imagination" in store.names()
        finally:
            folder(store).chmod(0o755)


def test_a_file_in_place_of_the_folder_is_a_line(tmp_path):
    (tmp_path / "presets").touch()
    assert "cannot be read" in lines(PresetStore(tmp_path))["presets"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a": 5}', b'{"a": null}', b"\xff", b"[" * LONG, b'{"": "a"}',
                                  b'{"\\ud800": "a"}', json.dumps({"a": "x" * (MOST_NAME + 1)}).encode(),
                                  json.dumps({str(i): "a" for i in range(MOST_ROLES + 1)}).encode(),
                                  b" " * (MOST_BYTES + 1)], ids=range(12))
def test_roles_that_cannot_be_read_are_one_line_which_names_the_file_and_what_to_do(store, data):
    path = store.user_dir / "roles.json"
    path.write_bytes(data)
    bindings, error = store.listed_bindings()
    assert bindings == {} and "\n" not in error and error.endswith(f"; mend or delete the file {path}")
    assert len(store.names()) > 5
    for needs in (lambda: resolve(parse_recipe(ROLE), store), lambda: store.bind({"child": "a"})):
        with pytest.raises(SciArtError) as caught:
            needs()
        assert caught.value.field == "roles"
    assert path.read_bytes() == data  # what could be mended is not written over
    assert resolve(parse_recipe({**ROLE, "roles": {"child": "b"}}), store).loras[0].name == "b"
    assert resolve(parse_recipe(RECIPE), store).loras[0].name == "a"


@pytest.mark.parametrize("bindings", [
    {"a": "x" * (MOST_NAME + 1)}, {"x" * (MOST_NAME + 1): "a"}, {"": "a"}, {"a": "\ud800"}, {"\ud800": "a"},
    {str(i): "a" for i in range(MOST_ROLES + 1)}, {"a": None}, {1: "a"}, None, 5])
def test_roles_that_could_not_be_read_again_are_not_bound(store, bindings):
    store.bind({"kept": "a"})
    with pytest.raises(SciArtError, match=r"^roles"):
        store.bind(bindings)
    assert store.bindings() == {"kept": "a"}


def test_no_more_roles_are_bound_than_can_be_read(store):
    store.bind({str(i): "a" for i in range(MOST_ROLES)})
    with pytest.raises(SciArtError, match=f"at most {MOST_ROLES}"):
        store.bind({"one more": "a"})
    store.bind({"0": "", "one more": "a"})
    assert len(store.bindings()) == MOST_ROLES


def webp(size, **options):
    data = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(data, "webp", **options)
    return data.getvalue()


def as_url(data):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def png(size, mode="RGB"):
    data = io.BytesIO()
    Image.new(mode, size).save(data, "png")
    return as_url(data.getvalue())


def png_that_says(width, height):
    """A few bytes that say they are a large picture."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return as_url(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""))


def thumbnails(store):
    told = listed_with_pictures(store)
    json.dumps(told, ensure_ascii=False).encode("utf-8")
    return {one["name"]: (one["thumbnail"], one["thumbnail_error"]) for one in told if "error" not in one}


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8 " + bytes(40),
                                  b"RIFF\0\0\0\0WEBPVP8X" + b"\xff" * 40, b"<svg onload='alert(1)'/>" * 9,
                                  base64.b64decode(png((8, 8)).partition(",")[2]), webp((1025, 8)),
                                  webp((900, 900), lossless=True)],
                         ids=range(9))
def test_a_thumbnail_that_is_no_small_webp_is_a_line_of_its_preset_which_can_be_used(store, data):
    (folder(store) / "good.webp").write_bytes(data)
    picture, error = thumbnails(store)["good"]
    assert picture is None and error.startswith("thumbnail: good.webp") and "\n" not in error
    assert all(told == "" for name, (_, told) in thumbnails(store).items() if name != "good")
    assert store.read("good").data["title"] == "Good"


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0" + bytes(20)}],
                         ids=["VP8", "VP8L", "VP8X"])
def test_the_size_is_told_by_the_head_of_every_kind_of_webp(options):
    assert webp_size(webp((37, 21), **options)) == (37, 21)


@pytest.mark.parametrize("picture", [
    png_that_says(30_000, 30_000), png_that_says(2**31 - 1, 2**31 - 1), png_that_says(0, 5), png_that_says(5000, 5000),
    as_url(b"\x89PNG\r\n\x1a\n" + bytes(100)), 5, ["x"], {}], ids=range(8))
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(store, picture):
    with pytest.raises(SciArtError) as caught:
        save_thumbnail(store, "good", picture)
    assert caught.value.field == "thumbnail" and not (folder(store) / "good.webp").exists()


def test_pictures_changed_by_chance_are_small_webps_or_refused(store):
    chance = random.Random(7)
    whole = base64.b64decode(png((40, 30), "RGBA").partition(",")[2])
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            save_thumbnail(store, "good", as_url(bytes(data)))
        except SciArtError as error:
            assert error.field == "thumbnail"
        assert thumbnails(store)["good"][1] == ""


BINDS = """
import sys
from pathlib import Path
from sciart_ext.presets import PresetStore
store, one = PresetStore(Path(sys.argv[1])), sys.argv[2]
for i in range(20):
    store.bind({f"{one}-{i}": "a"})
    store.save(f"p-{one}-{i}", {"recipe": {"loras": [{"name": "a", "weight": 1}]}})
"""


def test_eight_processes_that_bind_and_save_at_once_lose_nothing(tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", BINDS, str(tmp_path), str(one)], cwd=ROOT, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for one in range(8)]
    assert [(one.communicate(timeout=300)[0], one.returncode) for one in started] == [("", 0)] * 8
    store = PresetStore(tmp_path)
    assert set(store.bindings()) == {f"{one}-{i}" for one in range(8) for i in range(20)}
    assert {name for name in store.names() if name.startswith("p-")} == {f"p-{one}-{i}" for one in range(8)
                                                                        for i in range(20)}
    assert len(list(folder(store).iterdir())) == 160


def test_a_save_that_is_killed_leaves_the_old_preset_and_the_next_one_nothing_else(store):
    code = """
import os, signal, sys
from pathlib import Path
from sciart_ext.presets import PresetStore
replace = os.replace
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
PresetStore(Path(sys.argv[1])).save("good", {"title": "new", "recipe": {"loras": [{"name": "a", "weight": 1}]}})
"""
    assert subprocess.run([sys.executable, "-c", code, str(store.user_dir)], cwd=ROOT).returncode == -9
    assert store.read("good").data["title"] == "Good" and len(os.listdir(folder(store))) == 3
    store.save("good", {**GOOD, "title": "Next"})
    assert os.listdir(folder(store)) == ["good.json"] and store.read("good").data["title"] == "Next"
