"""Regions drawn over the last picture: with mouse, pen, finger and keyboard; what is drawn is the recipe's region."""

from __future__ import annotations

import base64
import io
import json
from contextlib import contextmanager

import numpy as np
import pytest
from mouse import drag
from panel_page import expect, opened
from PIL import Image

from sciart_ext.recipe import parse_recipe
from sciart_ext.recipe.mask_picture import KEPT_SIDE, mask_values

pytestmark = pytest.mark.browser

LORAS = [{"name": "child_style", "weight": 1, "region": [0.25, 0.25, 0.75, 0.75]},
         {"name": "watercolor-v2", "weight": 1}]
ORANGE = (240, 120, 20)


@pytest.fixture
def page(address, browser):
    with opened(address, browser, height=1600) as page:
        yield page.open()


def data_url(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def put_picture(page, size=(600, 400), color=ORANGE, tab="txt2img"):
    """Into the gallery of the host, as the last picture of a tab."""
    page.page.evaluate("""async ([tab, source]) => {
        document.getElementById(`${tab}_gallery`)?.remove();
        document.body.insertAdjacentHTML("beforeend", `<div id="${tab}_gallery" hidden><img></div>`);
        const picture = document.querySelector(`#${tab}_gallery img`);
        picture.src = source;
        await picture.decode();
    }""", [tab, data_url(Image.new("RGB", size, color))])


def draw_in(page, index, loras=LORAS):
    page.show(*loras, compose="regions")
    page.row(index).get_by_role("button", name="Draw", exact=True).click()
    canvas = page.row(index).locator("canvas")
    canvas.scroll_into_view_if_needed()
    page.rest()
    return canvas


def choose(page, index, tool):
    page.row(index).get_by_role("button", name=tool, exact=True).click()


def mask_in(page, index):
    """Of the recipe that the script receives, as Python keeps it: (h, w), 0 to 1."""
    return mask_values(parse_recipe(json.loads(page.received())).loras[index].region)


def seen_at(canvas, x, y):
    """The colour of a place of the surface."""
    return canvas.evaluate("""(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
        x * canvas.width, y * canvas.height, 1, 1).data]""", [x, y])


def shape_of(canvas):
    return canvas.evaluate("(canvas) => [canvas.width, canvas.height]")


def test_a_dragged_box_is_the_region(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    drag(page.page, canvas, (0.8, 0.9), (0.5, 0.1))  # in whichever direction
    assert json.loads(page.received())["loras"][1]["region"] == pytest.approx([0.5, 0.1, 0.8, 0.9], abs=0.02)
    box = page.recipe()["loras"][1]["region"]
    assert all(value == round(value, 2) for value in box)
    expect(page.field(1, "region")).to_have_value(" ".join(f"{value:g}" for value in box))
    expect(page.error).to_be_empty()
    drag(page.page, canvas, (0.5, 0.5), (1.3, 1.2))  # what lies beyond the picture is not in it
    assert page.recipe()["loras"][1]["region"] == pytest.approx([0.5, 0.5, 1, 1], abs=0.02)
    drag(page.page, canvas, (0.2, 0.2), (0.205, 0.21))  # no box, a click
    assert page.recipe()["loras"][1]["region"] == pytest.approx([0.5, 0.5, 1, 1], abs=0.02)


def test_a_painted_mask_is_the_region(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    choose(page, 1, "Brush")
    drag(page.page, canvas, (0.2, 0.5), (0.8, 0.5))
    mask = mask_in(page, 1)
    assert mask.shape == (43, KEPT_SIDE)  # as the picture
    assert (mask[21, 13:51] == 1).all() and mask[:15].max() == 0 and mask[28:].max() == 0
    assert mask[:, :6].max() == 0 and mask[:, 58:].max() == 0
    expect(page.field(1, "region")).to_have_value("mask picture")
    expect(page.error).to_be_empty()
    choose(page, 1, "Eraser")
    drag(page.page, canvas, (0.5, 0.1), (0.5, 0.9))
    mask = mask_in(page, 1)
    assert mask[21, 32] == 0 and mask[21, 16] == 1 and mask[21, 48] == 1
    page.row(1).get_by_label("Brush size").fill("40")
    drag(page.page, canvas, (0.1, 0.5), (0.9, 0.5))
    assert "region" not in page.recipe()["loras"][1]  # nothing is left of it
    expect(page.field(1, "region")).to_have_value("")


def test_the_size_of_the_brush_is_a_share_of_the_shorter_side(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    choose(page, 1, "Brush")
    page.row(1).get_by_label("Brush size").fill("50")
    drag(page.page, canvas, (0.5, 0.5), (0.5, 0.5))
    mask = mask_in(page, 1)
    assert mask.sum() == pytest.approx(np.pi * (0.25 * 43)**2, rel=0.08)


def test_a_box_is_painted_further_as_a_mask(page):
    canvas = draw_in(page, 0)
    choose(page, 0, "Eraser")
    drag(page.page, canvas, (0.5, 0.0), (0.5, 1.0))
    mask = mask_in(page, 0)
    assert mask.shape == (KEPT_SIDE, KEPT_SIDE)  # there is no picture: as the page is set
    assert mask[32, 20] == 1 and mask[32, 32] == 0 and mask[32, 44] == 1 and mask[8].max() == 0


def test_clear_takes_the_region_away(page):
    draw_in(page, 0)
    choose(page, 0, "Clear")
    assert "region" not in page.recipe()["loras"][0]


def test_regions_of_a_pasted_recipe_are_shown_and_go_on(page):
    mask = Image.new("L", (64, 43))
    mask.paste(255, (0, 0, 32, 43))
    put_picture(page)
    canvas = draw_in(page, 1, [LORAS[0], {**LORAS[1], "region": data_url(mask)}])
    expect(page.field(1, "region")).to_have_value("mask picture")
    own, other, both, none = (seen_at(canvas, *at) for at in ((0.1, 0.1), (0.6, 0.5), (0.4, 0.5), (0.9, 0.1)))
    assert none[:3] == list(ORANGE)
    assert len({tuple(color) for color in (own, other, both, none)}) == 4
    choose(page, 1, "Brush")
    drag(page.page, canvas, (0.9, 0.1), (0.9, 0.3))
    values = mask_in(page, 1)
    assert (values[:, :31] == 1).all() and values[6, 57] == 1 and values[30, 57] == 0
    page.field(1, "region").fill("0 0 0.2 0.2")  # what is typed is shown, too
    page.page.wait_for_function("(canvas) => canvas.getContext('2d').getImageData(690, 50, 1, 1).data[0] === 240",
                                arg=canvas.element_handle())


def test_a_pasted_infotext_brings_the_drawn_mask_back(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    choose(page, 1, "Brush")
    drag(page.page, canvas, (0.2, 0.2), (0.2, 0.8))
    kept = mask_in(page, 1)
    recipe = parse_recipe(page.recipe())
    infotext = "a rocket\nSteps: 4, Sampler: Euler a, CFG scale: 6.5, Seed: 7, SciArt: "
    choose(page, 1, "Clear")
    assert "region" not in page.recipe()["loras"][1]
    text = json.dumps({"compose": "regions", "loras": [LORAS[0], {**LORAS[1], "region": recipe.loras[1].region}]})
    page.paste(infotext + json.dumps(text))
    expect(page.field(1, "region")).to_have_value("mask picture")
    assert np.array_equal(mask_in(page, 1), kept)


def test_a_stroke_is_taken_back_and_done_again(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    choose(page, 1, "Brush")
    drag(page.page, canvas, (0.1, 0.2), (0.9, 0.2))
    first = page.recipe()["loras"][1]["region"]
    drag(page.page, canvas, (0.1, 0.8), (0.9, 0.8))
    second = page.recipe()["loras"][1]["region"]
    page.page.keyboard.press("Control+z")
    assert page.recipe()["loras"][1]["region"] == first
    page.page.keyboard.press("Control+Shift+z")
    assert page.recipe()["loras"][1]["region"] == second
    expect(page.row(1).locator("canvas")).to_have_count(1)  # still open


def test_everything_is_reached_by_keyboard_and_arrows_move_a_box(page):
    draw_in(page, 0)
    page.field(0, "region").focus()
    reached = []
    for _ in range(8):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate("document.activeElement.dataset.field || document.activeElement.dataset.tool "
                                          "|| document.activeElement.tagName"))
    assert reached == ["mask", "BUTTON", "box", "brush", "eraser", "size", "clear", "CANVAS"]
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.page.keyboard.press(key)
    assert page.recipe()["loras"][0]["region"] == [0.2, 0.15, 0.75, 0.7]
    for _ in range(8):
        page.page.keyboard.press("ArrowLeft")
    assert page.recipe()["loras"][0]["region"] == [0, 0.15, 0.55, 0.7]  # as far as the border
    page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("Enter")
    assert "region" not in page.recipe()["loras"][0]
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("ArrowRight")  # begins with one in the middle
    assert page.recipe()["loras"][0]["region"] == [0.3, 0.25, 0.8, 0.75]


@contextmanager
def phone(address, browser):
    with opened(address, browser, 390, 1600, has_touch=True, is_mobile=True) as page:
        yield page.open()


def test_a_finger_paints_and_does_not_scroll_the_page(address, browser):
    with phone(address, browser) as page:
        put_picture(page)
        canvas = draw_in(page, 1)
        choose(page, 1, "Brush")
        bounds, top = canvas.bounding_box(), page.page.evaluate("scrollY")
        touch = page.page.context.new_cdp_session(page.page)
        for number in range(9):
            point = {"x": bounds["x"] + bounds["width"] / 2, "y": bounds["y"] + bounds["height"] * (0.1 + 0.1 * number)}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove" if number else "touchStart",
                                                    "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert page.page.evaluate("scrollY") == top
        mask = mask_in(page, 1)
        assert (mask[6:36, 32] == 1).all() and mask[:, :24].max() == 0
        assert bounds["x"] + bounds["width"] <= 390


def test_a_pen_paints(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    choose(page, 1, "Brush")
    bounds, pen = canvas.bounding_box(), page.page.context.new_cdp_session(page.page)
    for kind, x in (("mousePressed", 0.2), ("mouseMoved", 0.5), ("mouseMoved", 0.8), ("mouseReleased", 0.8)):
        pen.send("Input.dispatchMouseEvent", {
            "type": kind, "x": bounds["x"] + x * bounds["width"], "y": bounds["y"] + 0.5 * bounds["height"],
            "button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen", "force": 0.5})
    assert (mask_in(page, 1)[21, 13:51] == 1).all()


def test_it_has_the_shape_of_the_last_picture_or_of_what_is_set(page):
    canvas = draw_in(page, 1)
    assert shape_of(canvas) == [768, 768]  # 640 x 640
    put_picture(page, (300, 600))
    canvas.hover()
    assert shape_of(canvas) == [384, 768] and seen_at(canvas, 0.9, 0.9)[:3] == list(ORANGE)
    put_picture(page, (300, 600), (20, 120, 240))  # the next one
    page.page.mouse.move(0, 0)
    canvas.hover()
    assert seen_at(canvas, 0.9, 0.9)[:3] == [20, 120, 240]


def test_one_row_at_a_time_has_the_surface(page):
    draw_in(page, 1)
    page.row(0).get_by_role("button", name="Draw", exact=True).click()
    expect(page.panel.locator("canvas")).to_have_count(1)
    expect(page.row(0).locator("canvas")).to_have_count(1)
    page.row(0).get_by_role("button", name="Draw", exact=True).click()
    expect(page.panel.locator("canvas")).to_have_count(0)
    draw_in(page, 1)
    page.button("Remove LoRA 1").click()
    expect(page.row(0).locator("canvas")).to_have_count(1)  # it has moved up with its row
    page.button("Remove LoRA 1").click()
    page.add("child_style", weight="1")
    expect(page.panel.locator("canvas")).to_have_count(0)


def test_regions_in_one_row_are_chosen(page):
    page.show(*LORAS, compose="regions")
    page.panel.get_by_label("in one go").check()
    assert json.loads(page.received())["composition"] == {"rows": "one"}
    expect(page.error).to_be_empty()
    page.panel.get_by_label("in one go").uncheck()
    assert "composition" not in page.recipe()


def put_batch(page, selected=None):
    """A gallery with the grid of a batch before its pictures, as the host has it; selected: which of all is large."""
    sources = [data_url(Image.new("RGB", size, color)) for size, color in
               (((1200, 400), (0, 0, 0)), ((600, 400), ORANGE), ((600, 400), (20, 120, 240)))]
    page.page.evaluate("""async ([sources, selected]) => {
        document.getElementById("txt2img_gallery")?.remove();
        const large = selected === null ? "" : `<img data-testid="detailed-image" src="${sources[selected]}">`;
        const listed = sources.map((source) => `<img src="${source}">`).join("");
        document.body.insertAdjacentHTML("beforeend", `<div id="txt2img_gallery" hidden>${large}${listed}</div>`);
        await Promise.all([...document.querySelectorAll("#txt2img_gallery img")].map((one) => one.decode()));
    }""", [sources, selected])


@pytest.mark.parametrize(("selected", "color"), [(None, ORANGE), (0, ORANGE), (1, ORANGE), (2, (20, 120, 240))])
def test_the_grid_of_a_batch_is_not_drawn_on(page, selected, color):
    put_batch(page, selected)
    canvas = draw_in(page, 1)
    assert shape_of(canvas) == [768, 512]
    assert tuple(seen_at(canvas, 0.1, 0.1)[:3]) == color


def test_another_picture_in_the_same_element_is_taken(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    page.page.evaluate("""async (source) => {
        const picture = document.querySelector("#txt2img_gallery img");
        picture.src = source;
        await picture.decode();
    }""", data_url(Image.new("RGB", (400, 600), (20, 120, 240))))
    page.page.mouse.move(0, 0)
    canvas.hover()
    assert shape_of(canvas) == [512, 768]


def test_a_second_finger_neither_draws_nor_ends_a_stroke(page):
    put_picture(page)
    canvas = draw_in(page, 1)
    choose(page, 1, "Brush")
    canvas.evaluate("""(canvas) => {
        canvas.setPointerCapture = () => {};
        const {left, top, width, height} = canvas.getBoundingClientRect();
        const send = (kind, x, y, pointerId) => canvas.dispatchEvent(new PointerEvent(kind, {pointerId, bubbles: true,
            clientX: left + x * width, clientY: top + y * height, isPrimary: pointerId === 1, pointerType: "touch"}));
        send("pointerdown", 0.2, 0.2, 1);
        send("pointerdown", 0.9, 0.9, 2);
        send("pointermove", 0.9, 0.8, 2);
        send("pointerup", 0.9, 0.8, 2);
        send("pointermove", 0.5, 0.2, 1);
        send("pointerup", 0.5, 0.2, 1);
    }""")
    page.rest()
    mask = mask_in(page, 1)
    height, width = mask.shape
    assert mask[int(0.2 * height), int(0.45 * width)] == 1 and mask[int(0.5 * height):].max() == 0


def test_what_is_drawn_while_a_mask_is_read_stays(page):
    put_picture(page)
    white = data_url(Image.new("L", (64, 43), 255))
    found = page.page.evaluate("""async (mask) => {
        const area = new window.sciart.Area(600, 400), read = area.load(mask);
        area.setBox([0, 0, 0.5, 0.5]);
        await read;
        return area.region();
    }""", white)
    assert found == [0, 0, 0.5, 0.5]
