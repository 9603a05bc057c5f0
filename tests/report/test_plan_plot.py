"""Plots of a plan: well-formed, complete, and with the numbers of the plan's table."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.report.plan_plot import plan_png, plan_svg
from sciart_ext.report.svg import DASHES, MAX_POINTS, PALETTE

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["child", 'wa<ter> & "colour"', "수채화 \x07 style", "_sci$ence$"]


def plan(steps=20, hires_steps=0, names=NAMES):
    loras = [{"name": name, "schedule": [[0, 0.2 + 0.1 * i], [0.5, 0.65]]} for i, name in enumerate(names)]
    loras[0]["hires"] = {"weight": -0.4}
    loras[-1].update(te_weight=1.25, apply_to="cond")
    return compile_plan(parse_recipe({"loras": loras}), steps, hires_steps)


def texts(element):
    return [node.text or "" for node in element.iter()]


@pytest.mark.parametrize("steps, hires_steps", [(1, 0), (2, 1), (20, 0), (20, 12), (150, 150)])
def test_the_svg_is_well_formed_with_one_polyline_per_lora_and_pass(steps, hires_steps):
    root = ElementTree.fromstring(plan_svg(plan(steps, hires_steps)))
    assert len(root.findall(f".//{SVG}polyline")) == len(NAMES) * (2 if hires_steps else 1)
    assert len(root.findall(f".//{SVG}line[@class='divider']")) == (1 if hires_steps else 0)


def test_every_name_is_there_escaped_and_without_characters_xml_forbids():
    svg = plan_svg(plan())
    legend = [entry.find(f"{SVG}title").text
              for entry in ElementTree.fromstring(svg).findall(f".//{SVG}g[@class='entry']")]
    assert legend == [name.replace("\x07", "\ufffd") for name in NAMES]
    assert "<ter>" not in svg


def test_hover_texts_carry_the_numbers_of_the_table():
    compiled = plan(7, 4)
    shown = texts(ElementTree.fromstring(plan_svg(compiled)))
    for table in compiled.table().values():
        lora = table["loras"][0]
        for step, weight in enumerate(lora["weights"]):
            assert f"child, step {step + 1} of {table['steps']}: {weight:g}" in shown
    assert any(text.endswith("text encoder: 1.25") for text in shown)


def test_the_negative_prompt_s_weights_have_a_line_of_their_own_in_the_lora_s_colour():
    loras = [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.8, "negative": {"schedule": "0@0, 1@1"}}]
    compiled = compile_plan(parse_recipe({"loras": loras}), 4, 3)
    root = ElementTree.fromstring(plan_svg(compiled))
    lines = root.findall(f".//{SVG}polyline")
    assert [line.get("stroke") for line in lines] == [PALETTE[0], PALETTE[1], PALETTE[1]] * 2
    assert [bool(line.get("stroke-dasharray")) for line in lines] == [False, False, True] * 2
    told = texts(root)
    assert "b (negative prompt), step 2 of 4: 0.333333" in told and "b (negative prompt), text encoder: 1" in told
    assert "weight in the negative prompt" in told
    assert "weight in the negative prompt" not in texts(ElementTree.fromstring(plan_svg(plan())))
    assert plan_png(compiled).startswith(b"\x89PNG")


def test_points_are_drawn_in_the_height_of_their_weight():
    compiled = plan(9, 5)
    root = ElementTree.fromstring(plan_svg(compiled))
    lines = [[tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
             for line in root.findall(f".//{SVG}polyline")]
    weights = [lora["weights"] for table in compiled.table().values() for lora in table["loras"]]
    drawn = [(y, weight) for line, row in zip(lines, weights) for (_, y), weight in zip(line, row)]
    (y0, w0), (y1, w1) = min(drawn, key=lambda pair: pair[1]), max(drawn, key=lambda pair: pair[1])
    for y, weight in drawn:
        assert y == pytest.approx(y0 + (y1 - y0) * (weight - w0) / (w1 - w0), abs=0.02)
    for line in lines:
        assert [x for x, _ in line] == sorted({x for x, _ in line})


def test_everything_drawn_is_inside_the_picture():
    root = ElementTree.fromstring(plan_svg(plan(30, 10, names=[f"lora number {i}" for i in range(32)])))
    _, _, width, height = map(float, root.get("viewBox").split())
    for node in root.iter():
        for key, value in node.attrib.items():
            if key in ("x", "x1", "x2", "cx"):
                assert 0 <= float(value) <= width
            if key in ("y", "y1", "y2", "cy"):
                assert 0 <= float(value) <= height


def test_long_passes_are_thinned_but_keep_first_and_last_step():
    svg = plan_svg(plan(5000, names=["a"]))
    assert svg.count("<circle") == MAX_POINTS
    assert "step 1 of 5000" in svg and "step 5000 of 5000" in svg


def test_more_loras_than_colours_stay_told_apart_by_dashes():
    svg = plan_svg(plan(5, names=[f"n{i}" for i in range(len(PALETTE) * len(DASHES))]))
    strokes = re.findall(r'<polyline [^>]*stroke="([^"]+)"[^>]*?(?:stroke-dasharray="([^"]*)")?/>', svg)
    assert len(set(strokes)) == len(PALETTE) * len(DASHES)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("hires_steps", [0, 8])
def test_the_png_has_the_size_asked_for(hires_steps):
    pytest.importorskip("matplotlib")
    png = plan_png(plan(20, hires_steps), width=640, height=320)
    assert png.startswith(b"\x89PNG")
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (640, 320)
