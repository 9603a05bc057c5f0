"""Mixing as a whole: the triangle of three LoRAs, the balance of two, the amount of any number."""

from __future__ import annotations

import pytest
from panel_page import expect, opened

from sciart_ext.recipe.schedule import check_points

pytestmark = pytest.mark.browser

NAMES = ("child_style", "watercolor-v2", "science_fiction", "수채화")
TALL = 2400


@pytest.fixture(params=[(1280, True), (390, False)], ids=["wide-dark", "phone-light"])
def page(request, address, browser):
    width, dark = request.param
    with opened(address, browser, width, TALL, dark=dark) as page:
        yield page.open()


def three(*weights):
    return [{"name": name, "weight": weight} for name, weight in zip(NAMES, weights)]


def weights(page):
    return [lora["weight"] for lora in page.recipe()["loras"]]


def dot(page):
    return page.panel.locator(".sciart-dot")


def place(page, *shares):
    """Of these shares, between the corners as they are drawn."""
    corners = [circle.bounding_box() for circle in page.panel.locator(".sciart-triangle circle").all()]
    return [sum(share * (box[axis] + box[side] / 2) for share, box in zip(shares, corners))
            for axis, side in (("x", "width"), ("y", "height"))]


def centre(page):
    box = dot(page).bounding_box()
    return [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]


def drag(page, *shares):
    page.page.mouse.move(*centre(page))
    page.page.mouse.down()
    page.page.mouse.move(*place(page, *shares), steps=8)
    page.page.mouse.up()
    page.rest()


def test_the_dot_is_where_the_weights_are(page):
    page.show(*three(0.6, 0.3, 0.1))
    assert centre(page) == pytest.approx(place(page, 0.6, 0.3, 0.1), abs=1)
    page.field(1, "weight").fill("0")
    assert centre(page) == pytest.approx(place(page, 6 / 7, 0, 1 / 7), abs=1)


def test_dragging_the_dot_sets_the_weights_and_keeps_their_sum(page):
    page.show(*three(0.65, 0.55, 0.5))
    drag(page, 0.2, 0.3, 0.5)
    assert weights(page) == pytest.approx([0.34, 0.51, 0.85], abs=0.03)
    assert sum(weights(page)) == pytest.approx(1.7, abs=1e-9)
    drag(page, 0, 1, 0)
    assert weights(page) == [0, 1.7, 0]
    expect(page.field(1, "weight")).to_have_value("1.7")
    page.button("Undo").click()
    page.button("Undo").click()
    assert weights(page) == [0.65, 0.55, 0.5]


def test_schedules_are_scaled_in_proportion_and_come_back_from_nothing(page):
    page.show({"name": NAMES[0], "schedule": "0.2@0, 0.6@0.5", "curve": "cosine"}, *three(0, 0.4, 0.5)[1:])
    for shares in ((0, 0.5, 0.5), (0.8, 0.1, 0.1)):
        drag(page, *shares)
    (_, start), (half, end) = check_points(page.recipe()["loras"][0]["schedule"])
    assert end == pytest.approx(0.8 * 1.5, abs=0.03) and start == pytest.approx(end / 3, abs=1e-3) and half == 0.5
    assert page.recipe()["loras"][0]["curve"] == "cosine"


def test_the_keyboard_mixes(page):
    page.show(*three(0.5, 0.5, 1))
    dot(page).focus()
    page.page.keyboard.press("ArrowUp")
    assert weights(page) == pytest.approx([0.6, 0.47, 0.93], abs=0.01)
    page.page.keyboard.press("Shift+ArrowLeft")
    assert sum(weights(page)) == pytest.approx(2, abs=1e-9) and weights(page)[1] == pytest.approx(0.49, abs=0.011)
    expect(dot(page)).to_have_attribute("aria-valuetext", ", ".join(
        f"{name} {weight:g}" for name, weight in zip(NAMES, weights(page))))
    page.page.keyboard.press("Control+z")
    page.page.keyboard.press("Control+z")
    assert weights(page) == [0.5, 0.5, 1]


def test_negative_weights_close_the_triangle_and_say_why(page):
    page.show(*three(0.5, -0.5, 1))
    expect(page.panel.locator(".sciart-reason")).to_have_text("Takes weights from 0; one is negative")
    expect(dot(page)).to_have_attribute("aria-disabled", "true")
    drag(page, 1, 0, 0)
    assert weights(page) == [0.5, -0.5, 1]
    page.field(1, "weight").fill("0.5")
    expect(page.panel.locator(".sciart-reason")).to_be_empty()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_amount_scales_all_of_them(page, count):
    given = [0.8, 0.4, 0.2, 0.6][:count]
    page.show(*three(*given))
    amount = page.panel.locator("[data-tool=amount]")
    expect(amount).to_have_value(f"{sum(given):g}")
    amount.fill(f"{sum(given) / 2:g}")
    assert weights(page) == pytest.approx([weight / 2 for weight in given], abs=1e-3)
    amount.fill("0")
    assert weights(page) == [0] * count
    amount.fill(f"{sum(given):g}")
    assert weights(page) == pytest.approx(given, abs=2e-3)


def test_two_have_a_balance(page):
    page.show(*three(0.6, 0.4))
    balance = page.panel.locator("[data-tool=balance]")
    expect(balance).to_have_value("0.4")
    balance.fill("0.25")
    assert weights(page) == [0.75, 0.25]
    expect(page.panel.locator(".sciart-triangle")).to_have_count(0)


def test_one_alone_has_its_slider_only(page):
    page.show(*three(0.6))
    expect(page.panel.locator(".sciart-mix")).to_be_hidden()
    page.show(*three(0.1, 0.2, 0.3, 0.4))
    expect(page.panel.locator(".sciart-triangle")).to_have_count(0)
    expect(page.panel.locator("[data-tool=amount]")).to_be_visible()
