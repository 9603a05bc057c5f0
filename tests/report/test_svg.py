"""Line plots: well-formed, every curve with its numbers, told apart, inside the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from sciart_ext.report.svg import line_plot

SVG = "{http://www.w3.org/2000/svg}"
CURVES = [("child", [0.0, 2.5, 4.0]), ('wa<ter> & "colour"', [0.0, 1.0, 0.5])]


def drawn(curves=CURVES, first=0):
    return ElementTree.fromstring(line_plot(curves, "step", "distance", "How far each moves", first))


def test_every_point_tells_its_number():
    hovers = [circle.find(f"{SVG}title").text for circle in drawn().iter(f"{SVG}circle")]
    assert hovers == [f"{name}, step {step}: {value:g}" for name, values in CURVES for step, value in enumerate(values)]


@pytest.mark.parametrize(("first", "count", "labels"), [
    (0, 3, ["0", "1", "2"]), (1, 3, ["1", "2", "3"]), (0, 21, ["0", "5", "10", "15", "20"]),
    (1, 20, ["1", "5", "10", "15", "20"]), (0, 1, ["0"])])
def test_steps_are_numbered_from_the_first(first, count, labels):
    axes = drawn([("a", [float(i) for i in range(count)])], first).find(f"{SVG}g[@class='axes']")
    numbers = [text for text in axes.iter(f"{SVG}text") if text.get("text-anchor") == "middle"]
    assert [text.text for text in numbers if text.text.isdigit()] == labels


def test_a_larger_value_is_higher_and_all_is_inside():
    root = drawn()
    _, _, width, height = map(float, root.get("viewBox").split())
    points = [tuple(map(float, pair.split(","))) for line in root.iter(f"{SVG}polyline")
              for pair in line.get("points").split()]
    assert points[2][1] < points[1][1] < points[0][1] and points[0][1] == points[3][1]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_curves_have_their_own_colours_and_names():
    root = drawn()
    assert len({line.get("stroke") for line in root.iter(f"{SVG}polyline")}) == 2
    assert [entry.find(f"{SVG}title").text for entry in root.iter(f"{SVG}g") if entry.get("class") == "entry"] == [
        name for name, _ in CURVES]
