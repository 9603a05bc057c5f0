"""The demonstration: what its pictures show by the oracle's word, its commands, and its page in a browser."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.cli import main
from sciart_ext.recipe import dump_recipe
from sciart_ext.standalone.demo import (
    BOTH,
    CONSTANT,
    MERGED,
    STEERED,
    STYLE_PROMPTS,
    STYLES,
    THEN_CHILD,
    THEN_WATERCOLOR,
    Demo,
    both_there,
    make_demo,
    mean_strengths,
    orders,
    write_demo,
)
from sciart_ext.standalone.demo_page import sentences
from sciart_ext.standalone.infotext import read_picture
from sciart_ext.world.oracle import STYLE_PRESENT
from sciart_ext.world.scenes import STYLES as HANDS


@pytest.fixture(scope="module")
def demo() -> Demo:
    return make_demo()


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory) -> Path:
    return write_demo(demo, tmp_path_factory.mktemp("demo")).parent


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_steering_keeps_both_subjects_in_more_seeds_than_merging(demo):
    kept = {title: sum(map(both_there, made.readings)) for title, made in demo.subjects.items()}
    assert demo.subjects[MERGED].order.seeds == demo.subjects[STEERED].order.seeds == (1, 2, 3, 4, 5, 6)
    assert kept[STEERED] >= 5 and kept[MERGED] <= 3


def test_each_style_can_be_seen_alone_and_both_in_their_mixture(demo):
    found = mean_strengths(demo.styles)
    assert list(found) == list(STYLES)
    for style in HANDS:
        assert found[style][style] >= 2 * STYLE_PRESENT
        assert found["no LoRA"][style] < 0.1
        assert all(found[other][style] < STYLE_PRESENT for other in HANDS if other != style)
        for prompt in STYLE_PROMPTS:
            assert demo.styles[prompt][style].readings[0].present(style), f"{prompt}: {style}"
    for prompt in STYLE_PROMPTS:
        assert all(demo.styles[prompt][CONSTANT].readings[0].present(style) for style in BOTH), prompt


def test_the_thing_that_is_asked_for_is_in_every_picture_of_a_style(demo):
    for prompt, by_title in demo.styles.items():
        for title, made in by_title.items():
            assert made.readings[0].count(prompt.split()[1]) == 1, f"{prompt}: {title}"


def test_who_comes_last_has_the_picture(demo):
    found = mean_strengths(demo.changing)
    assert min(found[CONSTANT].get(style) for style in BOTH) >= STYLE_PRESENT
    for title, last, first in ((THEN_CHILD, "child", "watercolor"), (THEN_WATERCOLOR, "watercolor", "child")):
        assert found[title][last] >= 2 * STYLE_PRESENT and found[title][first] < STYLE_PRESENT / 2
        for by_title in demo.changing.values():
            seen = by_title[title].readings[0]
            assert seen.present(last) and not seen.present(first)


def test_the_sentences_say_of_each_lora_what_is_missing_without_it(demo):
    said = sentences(demo)
    assert len(said) == len(BOTH)
    for style, sentence in zip(BOTH, said):
        share, without, whole = map(float, re.fullmatch(
            rf"{style}: (\d+) % of the change, .+\. Without it the oracle finds ([\d.]+) of the style {style}, "
            r"with it ([\d.]+)\.", sentence).groups())
        assert share > 10 and whole >= STYLE_PRESENT > without


def test_the_page_leads_from_subjects_to_styles_to_changes_to_influence(text):
    places = [text.index(f"<h2>{begin}") for begin in (
        "Two subjects", "Three styles", "Weights that change", "What each LoRA did", "From here")]
    assert places == sorted(places)


def test_the_page_has_everything_in_it_and_its_links_lead_somewhere(demo, folder, text):
    assert not re.search(r'src="(?!data:image/png;base64,)', text)
    links = re.findall(r'href="([^"]+)"', text)
    assert len(links) >= 7 and all((folder / link).is_file() for link in links)
    for made in demo.made:
        for prompt in {made.order.prompt}:
            assert f"<q>{html.escape(prompt)}</q>" in text
        for name, picture in zip(made.order.files(), made.pictures):
            with Image.open(folder / name) as kept:
                assert np.array_equal(np.asarray(kept.convert("RGB")), np.asarray(picture))


def test_the_shares_that_are_told_of_more_seeds_are_those_that_were_measured(text):
    told, = re.findall(r"in (0\.\d+) of the pictures merged, in (0\.\d+) steered", text)
    figures = re.sub(r"\s+", " ", (ROOT / "docs" / "figures.md").read_text(encoding="utf-8"))
    assert f"Of the rocket and the robot both are there in {told[1]} instead of {told[0]}" in figures


def test_every_picture_has_its_command_and_recipe_on_the_page(demo, text):
    blocks = [html.unescape(block) for block in re.findall(r"<pre>(.+?)</pre>", text)]
    for made in demo.made:
        assert made.order.command() in blocks
        if made.order.recipe:
            assert json.dumps(dump_recipe(made.order.parsed)) in blocks


@pytest.mark.parametrize(("number", "seeds"), [(0, 2), (1, 1), (4, 1), (7, 1)])
def test_the_commands_make_the_pictures(number, seeds, demo, tmp_path, monkeypatch):
    """Of several seeds the first ones: all are made alike."""
    monkeypatch.chdir(tmp_path)
    order = replace(orders()[number], seeds=orders()[number].seeds[:seeds])
    _, *words = shlex.split(order.command())
    assert words[:2] == ["-m", "sciart_ext"]
    assert main([*words[2:], "--quiet"]) == 0
    made = next(one for one in demo.made if one.order == orders()[number])
    assert len(order.files()) == seeds
    for name, picture, infotext in zip(order.files(), made.pictures, made.infotexts):
        with Image.open(tmp_path / name) as again:
            assert np.abs(np.asarray(again.convert("RGB"), int) - np.asarray(picture, int)).max() <= 2
        assert read_picture(tmp_path / name)["Steps"] == re.search(r"Steps: (\d+)", infotext)[1]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_window_with_everything_unfolded(browser, folder, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto((folder / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate("[...document.querySelectorAll('img, svg, pre, table, figure')].filter(one => "
                         "one.getBoundingClientRect().right > innerWidth).length")
    assert wide == 0 and page.locator("figure img").count() > 30
    page.close()
