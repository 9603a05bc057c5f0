"""The report: everything it says is of the runs, and its page and folder are whole."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from invented import invented
from PIL import Image

from sciart_ext.influence.folder import file_name, save_report
from sciart_ext.influence.page import report_page
from sciart_ext.influence.paths import neighbour_paths, principal_paths
from sciart_ext.influence.report import as_data, report
from sciart_ext.influence.subsets import ask

NAMES = ["child", 'wa<ter> & "colour"', "수채화"]
MADE = {"prompt": "a <rocket> & a robot", "recipe": {}, "summary": ["seed 1", "6 steps of Euler a"]}


def told(subsets="all", count=3, orders=None):
    question = ask(count, subsets, orders)
    runs = invented(count, words=2)
    names = [*NAMES, *"abcdefgh"][:count]
    return report(names, question, {one: runs[one] for one in question.sets}, ["rocket", "robot"], MADE), runs


class Shape(HTMLParser):
    """Refuses elements that are not closed, and collects what is in the page."""

    EMPTY = frozenset({"meta", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.images, self.words = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("subsets", ["solo", "left-out", "all"])
def test_the_page_is_whole_and_has_everything_in_it(subsets):
    made, _ = told(subsets)
    page = report_page(made)
    shape = Shape()
    shape.feed(page)
    assert shape.open == [] and not re.search(r'(src|href)="(?!data:)', page)
    words = " ".join(shape.words)
    for sentence in made.sentences():
        assert sentence in words
    assert MADE["prompt"] in words and "<rocket>" not in page and "<ter>" not in page
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in shape.images)
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)
    sections = {"solo": ["alone"], "left-out": ["left out"], "all": ["alone", "left out"]}[subsets]
    assert [one for one in ("alone", "left out") if f"When: {one}" in page] == sections


def test_titles_say_which_loras_acted():
    made, _ = told(count=4)
    assert made.title(0) == "no LoRA" and made.title(15) == "all" and made.title(1) == "only child"
    assert made.title(14) == "without child" and made.title(3) == 'child + wa<ter> & "colour"'


def test_the_folder_has_pictures_numbers_and_raw_maps(tmp_path):
    made, runs = told()
    page = save_report(made, tmp_path / "new" / "folder")
    folder = page.parent
    pictures = sorted(path.name for path in folder.glob("0*.png"))
    assert len(pictures) == 8 and pictures[0] == "00_no_LoRA.png" and pictures[1] == "01_only_child.png"
    assert np.array_equal(np.asarray(Image.open(folder / "00_no_LoRA.png")), runs[0].picture)
    data = json.loads((folder / "influence.json").read_text(encoding="utf-8"))
    assert data == json.loads(json.dumps(as_data(made)))
    with (folder / "shares.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["lora"] for row in rows] == NAMES
    assert sum(float(row["part"]) for row in rows) == pytest.approx(1, abs=2e-6)
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 7
    assert float(rows[6]["distance"]) == pytest.approx(float(made.influence.alone.curves[0, 6]))
    raw = np.load(folder / "maps.npz")
    assert np.array_equal(raw["heat_alone"], made.influence.alone.heat.numpy())
    assert raw["word_rocket"].shape == (8, 8, 8) and next(iter(raw["sets"])) == "no LoRA"
    assert Image.open(folder / "heat_left_out.png").mode == "RGB"


def test_names_of_files_are_those_any_system_takes():
    assert file_name('a/b\\c: "d" <e>?') == "a_b_c_d_e" and file_name("...") == "_"


def test_many_loras_have_estimates_in_the_report():
    made, _ = told(count=7, orders=3)
    assert "estimated from 3 orders" in report_page(made) and as_data(made)["shares"]["orders"] == 3


def test_paths_show_the_largest_distances_and_start_from_the_origin():
    runs = invented(3)
    ways = {one: run.trajectory for one, run in runs.items()}
    paths = principal_paths(ways, 0)
    assert paths.points[0].abs().max() < 1e-6 and paths.points[5].shape == (7, 2)
    moved = torch.stack([ways[one] - ways[0] for one in ways]).flatten(0, 1).flatten(1)
    squares = torch.linalg.svdvals(moved).square()
    assert paths.told == pytest.approx((squares[:2] / squares.sum()).tolist(), rel=1e-4)
    found = torch.stack(list(paths.points.values())).flatten(0, 1)
    assert found.square().sum(0).tolist() == pytest.approx(squares[:2].tolist(), rel=1e-4)
    again = principal_paths({one: way.clone() for one, way in ways.items()}, 0)
    assert all(torch.allclose(paths.points[one], again.points[one]) for one in ways)


def test_neighbourhoods_are_told_where_scikit_learn_is():
    pytest.importorskip("sklearn")
    ways = {one: run.trajectory for one, run in invented(2).items()}
    paths = neighbour_paths(ways)
    assert paths.told is None and all(points.shape == (7, 2) for points in paths.points.values())
    starts = torch.stack([points[0] for points in paths.points.values()])
    assert (starts - starts[0]).norm(dim=1).max() < (paths.points[3] - starts[0]).norm(dim=1).max()
