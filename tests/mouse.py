"""The mouse on a page, as a user moves it."""

from __future__ import annotations


def drag(page, node, *places) -> None:
    """Pressed from the first to the last of these places of a node, each (x, y) in shares of its sides."""
    node.scroll_into_view_if_needed()
    bounds = node.bounding_box()
    points = [(bounds["x"] + x * bounds["width"], bounds["y"] + y * bounds["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()
