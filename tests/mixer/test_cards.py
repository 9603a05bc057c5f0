"""Cards of files: read once, some at a time where there are many, anew when the file or the model is another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sciart_ext.lora.file import outline_lora
from sciart_ext.mixer.cards import Cards
from sciart_ext.world import MODEL

FOREVER = 1e9


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Five files called b0 to b4, and one that is none."""
    kept = {}
    for i in range(5):
        kept[f"b{i}"] = tmp_path / f"b{i}.safetensors"
        kept[f"b{i}"].write_bytes((MODEL / "loras" / "child.safetensors").read_bytes())
    kept["A none"] = tmp_path / "none.safetensors"
    kept["A none"].write_bytes(b"nothing")
    return kept


def damaged(path: Path) -> None:
    """Other bytes, as many and of the same time: whoever reads the file again finds that."""
    stat = path.stat()
    path.write_bytes(b"\0" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_card_tells_what_the_file_is(files):
    told = Cards().told(files, None, "", FOREVER)
    assert [card["name"] for card in told] == ["A none", "b0", "b1", "b2", "b3", "b4"]
    assert "damaged" in told[0]["error"] and told[0]["bytes"] == 7
    known = outline_lora(files["b0"], "b0").report()
    assert told[1] == {"name": "b0", "file": "b0.safetensors", "kind": known["kind"], "rank": known["rank"],
                       "base": known["base"], "bytes": files["b0"].stat().st_size, "fits": None, "fit_note": ""}


def test_a_second_question_reads_no_file_again(files):
    cards = Cards()
    told = cards.told(files, None, "", FOREVER)
    for path in files.values():
        damaged(path)
    assert cards.told(files, None, "", FOREVER) == told
    cards.forget()
    assert all("error" in card for card in cards.told(files, None, "", FOREVER))


def test_a_file_that_is_gone_is_told_and_hides_no_other(files):
    cards = Cards()
    files["b1"].unlink()
    told = {card["name"]: card for card in cards.told(files, None, "", FOREVER)}
    assert told["b1"]["error"] == "b1.safetensors: no such file" and told["b1"]["bytes"] == 0
    assert [name for name in told if "error" in told[name]] == ["A none", "b1"]
    files["b1"].write_bytes(files["b0"].read_bytes())
    assert "error" not in {card["name"]: card for card in cards.told(files, None, "", FOREVER)}["b1"]


def test_a_file_that_has_changed_is_read_again(files):
    cards = Cards()
    before = cards.told(files, None, "", FOREVER)
    files["b1"].write_bytes(b"else")
    after = cards.told(files, None, "", FOREVER)
    assert [one["name"] for one, other in zip(before, after) if one != other] == ["b1"]
    assert "error" in after[2]
    del files["b1"]
    assert [card["name"] for card in cards.told(files, None, "", FOREVER)] == ["A none", "b0", "b2", "b3", "b4"]


def test_where_there_are_many_they_are_read_some_at_a_time_the_wanted_first(files):
    cards, counts = Cards(), []
    told = cards.told(files, None, "", 0, first=["b3", "nobody"])
    assert [card["name"] for card in told if "unread" not in card] == ["b3"]
    assert next(card for card in told if card["name"] == "b4") == {
        "name": "b4", "file": "b4.safetensors", "bytes": files["b4"].stat().st_size, "unread": True}
    while any("unread" in card for card in told):
        counts.append(sum("unread" in card for card in told))
        told = cards.told(files, None, "", 0)
    assert counts == [5, 4, 3, 2, 1]
    assert told == Cards().told(files, None, "", FOREVER)


def test_a_card_tells_whether_the_file_fits(files):
    told = Cards().told({"b0": files["b0"]}, {}, "the empty model", FOREVER)
    assert told[0]["fits"] is False
    assert told[0]["fit_note"].startswith("b0.safetensors: fits no layer of the empty model")
