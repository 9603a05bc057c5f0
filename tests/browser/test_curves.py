"""The plot of the panel: it draws what the engine compiles, and what is dragged and pressed in it is the recipe."""

from __future__ import annotations

import json
import random
import re
import time

import pytest
from panel_page import expect, opened

from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.recipe.schedule import CURVES, check_points, step_progress

pytestmark = pytest.mark.browser

CHILD = {"name": "child_style", "schedule": "0.2@0, 0.6@0.5"}
STEADY = {"name": "watercolor-v2", "weight": 0.5}
TALL = 2400  # nothing has to be scrolled to, so that places in the window stay


@pytest.fixture(params=[(1280, False), (390, True)], ids=["wide-light", "phone-dark"])
def page(request, address, browser):
    width, dark = request.param
    with opened(address, browser, width, TALL, dark=dark) as page:
        yield page.open()


def place(page, progress, weight, index=0):
    """Where a point of the plot is in the window, as the page has it."""
    frame = page.page.evaluate("""([tab, index]) => {
        const svg = document.querySelector(`#sciart_${tab}_panel svg.sciart-plot`);
        const rows = [...svg.querySelectorAll('[data-curve]')];
        const dots = [...rows[index].querySelectorAll('circle')].map((dot) => dot.getBoundingClientRect());
        const rules = [...svg.querySelectorAll('.sciart-axes text[text-anchor=end]')].map((text) =>
            [Number(text.textContent), text.previousSibling.getBoundingClientRect().y]);
        return {left: dots[0].x + dots[0].width / 2, right: dots.at(-1).x + dots.at(-1).width / 2, rules};
    }""", [page.tab, index])
    (low, y0), (high, y1) = frame["rules"][0], frame["rules"][-1]
    return (frame["left"] + progress * (frame["right"] - frame["left"]), y0 + (weight - low) / (high - low) * (y1 - y0))


def centre(handle):
    box = handle.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start, end, steps=5):
    """From place to place of the window."""
    mouse = page.page.mouse
    mouse.move(*start)
    mouse.down()
    mouse.move(*end, steps=steps)
    mouse.up()
    page.rest()


def points(page, index=0):
    return [list(point) for point in check_points(page.recipe()["loras"][index]["schedule"])]


def expect_points(page, *accepted, patience=5.0):
    """One of these, soon: the page hears of a gesture a little later than the browser's driver has made it."""
    deadline = time.monotonic() + patience
    while points(page) not in accepted and time.monotonic() < deadline:
        page.page.wait_for_timeout(50)
    assert points(page) in accepted


def random_schedules(count):
    dice = random.Random(7)
    for i in range(count):
        places = sorted(dice.sample(range(0, 1001), dice.randint(1, 6)))
        places = [place / 1000 if dice.random() < 0.6 else f"s{place // 20 + 1}" for place in places]
        places = [place for place in dict.fromkeys(places) for _ in range(dice.choice((1, 1, 2)))]  # two: a jump
        pairs = [[place, round(dice.uniform(-2, 2), dice.randint(0, 4))] for place in places]
        dice.shuffle(pairs)
        mark = dice.choice((".", ","))
        text = "; ".join(f"{weight}@{place}" for place, weight in pairs).replace(".", mark)
        lora = {"name": "a", "schedule": text if i % 2 else pairs, "curve": CURVES[i % 3]}
        yield lora, dice.choice((1, 2, 7, 20, 35))


TEXTS = [
    "0.2@0, 0.65@0.5", "0,2@0; 0,65@0,5", "0,5", "50%", "20%@50%; 1@1", "1@0,5,2@1", "0@0,5@1", "1@0,5",
    "0.2, 1@0.5", "0.8:start=5:stop=10", "0.8 step=5-10", "0,8; Stop = s3", "0.8:start=0.3",
    "0.8:start=25%", "start=5", "0.8:stop=3:start=5", "0.8:start=3:stop=90%", "0.8:start=5:start=6",
    "0.8:lbw=ALL:start=5", "1@s0", "1@s2.5", "1 @ step 5\n0@1", "０．２＠０，０．６５＠５０％", "\u22120.5@0",
    "0.2@0.2, 1@0.2", "0@0.2, 1@0.2, 2@0.2", "0@s5, 1@s5, 2@s5", "0@s5, 1@0.2, 0.5@s5", "1@0,", ",1@0",
    "1@0@1", "1,000.5@0", "0.5²", "1_0@0", "1e1@1E-1", "+.5@.5", "12@0", "1@2", "0.2@0; 0,65@0,5",
    "0.2@0;; 1@1", "1@s10000", "1@s10001", "s5@1", "0.8start=5", "0.8 restart=5", "%", "5%%", "@"]


def engines(schedule):
    try:
        recipe = parse_recipe({"loras": [{"name": "a", "schedule": schedule}]})
    except ValueError:
        return None
    return recipe.loras[0].schedule


def test_texts_are_read_as_the_engine_reads_them(address, browser):
    """What it refuses has no curve."""
    dice = random.Random(3)
    pieces = ["0", "1", "0.5", ",5", "0,2", "25%", "s3", "S12", "@", "@", "@", ",", "; ", ", ", " ", "start=", "stop=",
              "-", ":"]
    texts = TEXTS + ["".join(dice.choices(pieces, k=dice.randint(1, 9))) for _ in range(3000)]
    with opened(address, browser) as page:
        read = page.page.evaluate(
            "(texts) => texts.map((schedule) => sciart.schedules.shapeOf({schedule})?.points)", texts)
    for text, points in zip(texts, read):
        assert points == engines(text), text
    assert sum(points is not None for points in read) > 100


def test_the_curves_are_those_the_engine_compiles(page):
    cases = [*random_schedules(600), ({"name": "a", "weight": -0.35}, 20), ({"name": "a", "schedule": "0.7"}, 9),
             ({"name": "a", "schedule": " 1e-1 @ .5;0.5@1. "}, 20)]
    asked = [[lora, [step_progress(step, steps) for step in range(steps)]]
             for lora, steps in cases]
    drawn = page.page.evaluate("""(asked) => asked.map(([lora, places]) => {
        const shape = sciart.schedules.shapeOf(lora), placed = sciart.schedules.placed(shape, places.length);
        return [places.map((place) => sciart.schedules.weightAt(placed, place)), sciart.schedules.largest(shape)];
    })""", asked)
    for (lora, steps), (weights, largest) in zip(cases, drawn):
        plan = compile_plan(parse_recipe({"loras": [lora]}), steps).first
        assert weights == pytest.approx([plan.weight(0, place) for place in plan.progress()], abs=1e-9), lora
        assert largest == plan.te_weights[0]


@pytest.mark.parametrize("schedule", ["", "0.2@", "@0.5", "0.2@1.5", "11@0", "0.2@0, 0.3@0, 0.4@0", "0.2@0,", "0x1@0",
                                      [], [[0]], [[0, "1"]], [["5", 1]], [["s0", 1]], 5])
def test_what_the_engine_refuses_has_no_curve(address, browser, schedule):
    with opened(address, browser) as page:
        assert page.page.evaluate("(schedule) => sciart.schedules.shapeOf({schedule})", schedule) is None
    with pytest.raises(ValueError):
        parse_recipe({"loras": [{"name": "a", "schedule": schedule}]})


@pytest.mark.parametrize("curve", CURVES)
def test_the_dots_of_the_compiled_plan_lie_on_the_drawn_line(page, curve):
    page.show({**CHILD, "schedule": "0.2@0.1, 0.9@0.55, 0.4@0.9", "curve": curve}, STEADY)
    expect(page.error).to_be_empty()
    expect(page.plot.locator(".sciart-te")).to_have_count(2)  # the plan has come
    off = page.plot.evaluate("""(svg) => [...svg.querySelectorAll('[data-curve]')].flatMap((curve) => {
        const way = curve.querySelector('.sciart-line-grip');
        const all = Array.from({length: 4001}, (_, i) => way.getPointAtLength(way.getTotalLength() * i / 4000));
        return [...curve.querySelectorAll('circle')].map((dot) => Math.min(...all.map((point) =>
            Math.hypot(point.x - dot.getAttribute('cx'), point.y - dot.getAttribute('cy')))));
    })""")
    assert len(off) == 40 and max(off) < 0.5


def test_a_point_is_dragged_and_snaps(page):
    page.show(CHILD, STEADY)
    drag(page, centre(page.handles.nth(1)), place(page, 0.713, 0.87))
    expect_points(page, [[0, 0.2], [0.7, 0.85]])
    assert page.recipe()["loras"][1] == STEADY
    expect(page.row(0).locator("[data-field=schedule]")).to_have_value("0.2@0, 0.85@0.7")
    page.page.keyboard.down("Shift")
    drag(page, centre(page.handles.nth(1)), place(page, 0.713, 0.87))
    page.page.keyboard.up("Shift")
    expect_points(page, [[0, 0.2], [0.71, 0.87]])
    expect(page.error).to_be_empty()


def test_points_in_steps_stay_in_steps(page):
    page.show({**CHILD, "schedule": "0.2@s1, 0.6@s10"})
    expect(page.handles.nth(1)).to_have_attribute("aria-valuetext", "0.6 @ 0.474, step 10 of 20")
    drag(page, centre(page.handles.nth(1)), place(page, 0.745, 0.85))
    assert page.recipe()["loras"][0]["schedule"] == "0.2@s1, 0.85@s15"
    page.handles.nth(1).focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        page.page.keyboard.press(key)
    assert page.recipe()["loras"][0]["schedule"] == "0.2@s1, 0.9@s13"
    page.page.mouse.dblclick(*place(page, 5 / 19, 0.4))
    assert [point[0] for point in points(page)] == ["s1", "s6", "s13"]
    expect(page.error).to_be_empty()


def test_a_jump_is_drawn_moved_up_and_down_and_taken_apart(page):
    page.show({**CHILD, "schedule": "0.2@0.5, 0.8@0.5"})
    expect(page.handles).to_have_count(2)
    expect(page.error).to_be_empty()
    page.handles.nth(1).focus()
    page.page.keyboard.press("ArrowUp")
    expect_points(page, [[0.5, 0.2], [0.5, 0.85]])
    page.page.keyboard.press("ArrowLeft")  # its own first point is there
    expect_points(page, [[0.5, 0.2], [0.5, 0.85]])
    page.page.keyboard.press("ArrowRight")
    expect_points(page, [[0.5, 0.2], [0.55, 0.85]])


def test_the_negative_prompt_has_a_line_of_its_own(page):
    page.show({**CHILD, "negative": {"weight": 0.4, "te_weight": 0.1}}, STEADY)
    expect(page.plot.locator(".sciart-negative")).to_have_count(1)
    expect(page.row(0).locator("[data-field=negative]")).to_have_value("0.4")
    page.row(0).locator("[data-field=negative]").fill("0@s1; 1@s5")
    assert page.recipe()["loras"][0]["negative"] == {"schedule": "0@s1; 1@s5", "te_weight": 0.1}
    page.row(0).locator("[data-field=negative]").fill("50%")
    assert page.recipe()["loras"][0]["negative"] == {"weight": 0.5, "te_weight": 0.1}
    expect(page.error).to_be_empty()


def test_points_can_snap_to_steps_and_act_from_that_step_on(page):
    page.show({**CHILD, "curve": "step"})
    page.panel.get_by_label("Snap", exact=True).select_option("steps")
    drag(page, centre(page.handles.nth(1)), place(page, 0.36, 0.6))
    plan = compile_plan(parse_recipe(page.recipe()), 20).first
    assert [plan.weight(0, place) for place in plan.progress()] == [0.2] * 7 + [0.6] * 13


def test_points_do_not_pass_each_other(page):
    page.show({**CHILD, "schedule": "0.2@0, 0.6@0.5, 0.4@0.8"})
    drag(page, centre(page.handles.nth(1)), place(page, 0.95, 0.6))
    expect_points(page, [[0, 0.2], [0.79, 0.6], [0.8, 0.4]])


def test_a_constant_weight_is_dragged_up_and_down_and_becomes_a_schedule(page):
    page.show(STEADY)
    expect(page.handles).to_have_count(1)
    drag(page, centre(page.handles.first), place(page, 0.9, 0.8))
    assert page.recipe()["loras"] == [{**STEADY, "weight": 0.8}]
    expect(page.field(0, "weight")).to_have_value("0.8")
    drag(page, place(page, 0.25, 0.8), place(page, 0.25, 0.6))  # the line itself, not the handle
    assert page.recipe()["loras"] == [{**STEADY, "weight": 0.6}]
    page.page.mouse.dblclick(*place(page, 0.75, 0.6))
    expect_points(page, [[0, 0.6], [0.75, 0.6]])
    expect(page.handles).to_have_count(2)


def test_points_come_and_go(page):
    page.show(CHILD)
    page.page.mouse.dblclick(*place(page, 0.25, 0.4))  # on the line
    expect_points(page, [[0, 0.2], [0.25, 0.4], [0.5, 0.6]])
    page.page.mouse.dblclick(*place(page, 0.8, 0.15))  # and off it
    expect_points(page, [[0, 0.2], [0.25, 0.4], [0.5, 0.6], [0.8, 0.15]])
    page.page.mouse.dblclick(*centre(page.handles.nth(1)))
    expect_points(page, [[0, 0.2], [0.5, 0.6], [0.8, 0.15]])
    x, y = place(page, 0.5, 0)
    drag(page, centre(page.handles.nth(2)), (x, y + 60))
    expect_points(page, [[0, 0.2], [0.5, 0.6]])
    page.button("Add a point").click()
    expect_points(page, [[0, 0.2], [0.5, 0.6], [0.75, 0.6]], [[0, 0.2], [0.25, 0.4], [0.5, 0.6]])
    page.button("Take a point out").click()
    page.button("Take a point out").click()
    page.handles.first.focus()
    page.page.keyboard.press("Delete")
    assert "schedule" not in page.recipe()["loras"][0]  # of one point a weight is left
    expect(page.button("Take a point out")).to_be_disabled()


def test_the_keyboard_moves_adds_and_removes(page):
    page.show(CHILD)
    page.handles.first.focus()
    page.page.keyboard.press("Tab")
    expect(page.handles.nth(1)).to_be_focused()
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "Shift+ArrowDown", "Shift+ArrowLeft"):
        page.page.keyboard.press(key)
    expect_points(page, [[0, 0.2], [0.59, 0.64]])
    expect(page.handles.nth(1)).to_have_attribute("aria-label", "Point 2 of child_style")
    expect(page.handles.nth(1)).to_have_attribute("aria-valuetext", "0.64 @ 0.59, step 12 of 20")
    page.page.keyboard.press("Insert")
    assert len(points(page)) == 3
    expect(page.page.locator(":focus")).to_have_attribute("data-point", "1")
    page.page.keyboard.press("Delete")
    expect_points(page, [[0, 0.2], [0.59, 0.64]])
    expect(page.page.locator(":focus")).to_have_attribute("role", "slider")
    page.page.keyboard.press("Control+z")
    assert len(points(page)) == 3


def test_the_text_and_the_plot_follow_each_other(page):
    page.show(CHILD)
    page.field(0, "schedule").fill("0.1@0, 0.5@0.25, 0.9@1")
    expect(page.handles).to_have_count(3)
    x, y = centre(page.handles.nth(1))
    assert (x, y) == pytest.approx(place(page, 0.25, 0.5), abs=1.5)
    page.panel.get_by_label("Curve of the chosen LoRA").select_option("step")
    expect(page.field(0, "curve")).to_have_value("step")
    assert page.recipe()["loras"][0]["curve"] == "step"
    page.field(0, "weight").fill("0.3")
    expect(page.handles).to_have_count(1)
    expect(page.panel.get_by_label("Curve of the chosen LoRA")).to_be_disabled()


def test_a_list_of_points_stays_a_list(page):
    page.show({**CHILD, "schedule": [[0, 0.2], [0.5, 0.6]]})
    drag(page, centre(page.handles.nth(1)), place(page, 0.6, 0.7))
    assert page.recipe()["loras"][0]["schedule"] == [[0, 0.2], [0.6, 0.7]]


def test_the_chosen_lora_is_edited_from_row_curve_or_name(page):
    page.show(CHILD, {"name": "science_fiction", "schedule": "0.9@0, 0.1@0.8"}, STEADY)
    page.field(1, "name").focus()
    expect(page.row(1)).to_have_class("sciart-row sciart-chosen")
    expect(page.handles.first).to_have_attribute("aria-label", "Point 1 of science_fiction")
    page.page.mouse.click(*place(page, 0.95, 0.5))  # the third's line
    expect(page.handles.first).to_have_attribute("aria-label", "Weight of watercolor-v2")
    page.panel.locator(".sciart-chip", has_text="child_style").click()
    expect(page.handles.first).to_have_attribute("aria-label", "Point 1 of child_style")
    expect(page.row(0)).to_have_class("sciart-row sciart-chosen")


def test_undo_and_redo_take_one_gesture_at_a_time(page):
    page.show(CHILD, STEADY)
    before = page.recipe()
    drag(page, centre(page.handles.nth(1)), place(page, 0.7, 0.85), steps=20)
    dragged = page.recipe()
    page.field(1, "weight").press_sequentially("5")  # 0.55
    typed = page.recipe()
    assert typed["loras"][1]["weight"] == 0.55
    page.button("Remove LoRA 2").click()
    for expected in (typed, dragged, before):
        page.button("Undo").click()
        assert page.recipe() == expected
    assert page.panel.locator("[data-index]").count() == 2
    page.button("Redo").click()
    assert page.recipe() == dragged
    page.handles.first.focus()
    page.page.keyboard.press("Control+z")
    assert page.recipe() == before
    page.page.keyboard.press("Control+Shift+Z")
    assert json.loads(page.received()) == dragged
    page.field(0, "name").focus()
    page.page.keyboard.press("Control+z")  # the field's own: there is nothing typed in it to take back
    assert page.recipe() == dragged


def test_numbers_are_told_under_the_pointer_and_while_dragging(page):
    page.show(CHILD, STEADY)
    told = page.panel.locator(".sciart-told")
    expect(told).to_be_hidden()
    page.page.mouse.move(*place(page, 5 / 19, 0.9))
    expect(told.locator("div")).to_have_text(["step 6 of 20", "child_style: 0.411", "watercolor-v2: 0.5"])
    page.page.mouse.move(*centre(page.handles.nth(1)))
    page.page.mouse.down()
    page.page.mouse.move(*place(page, 0.65, 0.7), steps=3)
    expect(told).to_have_text("0.7 @ 0.65, step 13 of 20")
    page.page.mouse.up()
    expect(told).to_be_hidden()


def test_the_focus_tells_the_numbers_of_its_point_and_of_any_step(page):
    page.show(CHILD, STEADY)
    told = page.panel.locator(".sciart-told")
    keyboard = page.page.keyboard
    page.panel.locator(".sciart-chip").last.focus()
    keyboard.press("Tab")  # the plot itself
    expect(page.plot).to_be_focused()
    expect(told.locator("div")).to_have_text(["step 1 of 20", "child_style: 0.2", "watercolor-v2: 0.5"])
    expect(told).to_have_attribute("aria-live", "polite")
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    expect(told.locator("div")).to_have_text(["step 3 of 20", "child_style: 0.284", "watercolor-v2: 0.5"])
    keyboard.press("End")
    expect(told.locator("div").first).to_have_text("step 20 of 20")
    keyboard.press("ArrowRight")
    expect(told.locator("div").nth(1)).to_have_text("child_style: 0.6")
    assert page.recipe()["loras"] == [CHILD, STEADY]  # looking changes nothing
    keyboard.press("Tab")
    keyboard.press("Tab")  # the second point
    expect(page.handles.nth(1)).to_be_focused()
    expect(told.locator("div")).to_have_text(["step 11 of 20", "child_style: 0.6", "watercolor-v2: 0.5"])
    keyboard.press("ArrowRight")
    keyboard.press("ArrowDown")
    expect(told.locator("div")).to_have_text(["step 11 of 20", "child_style: 0.535", "watercolor-v2: 0.5"])
    expect(page.plot.locator(".sciart-guide")).not_to_have_class(re.compile("sciart-hidden"))
    box = told.bounding_box()
    stage = page.panel.locator(".sciart-stage").bounding_box()
    assert stage["x"] <= box["x"] and box["x"] + box["width"] <= stage["x"] + stage["width"]
    keyboard.press("Tab")
    expect(told).to_be_hidden()


def test_keys_read_the_hires_pass_too(page):
    page.page.locator("#txt2img_steps input[type=number]").fill("4")
    page.page.evaluate("""() => document.body.insertAdjacentHTML('beforeend',
        '<input type="checkbox" id="txt2img_hr-visible-checkbox" checked>' +
        '<div id="txt2img_hires_steps"><input type="number" value="3"></div>')""")
    page.show({**STEADY, "hires": {"weight": 0.1}})
    expect(page.plot.locator("[data-curve]")).to_have_count(2)
    page.plot.focus()
    page.page.keyboard.press("End")
    told = page.panel.locator(".sciart-told div")
    expect(told).to_have_text(["step 3 of 3", "watercolor-v2: 0.1"])
    for _ in range(3):
        page.page.keyboard.press("ArrowLeft")
    expect(told).to_have_text(["step 4 of 4", "watercolor-v2: 0.5"])


def test_a_finger_that_taps_is_told_the_numbers_there(address, browser):
    with opened(address, browser, 390, TALL, has_touch=True, is_mobile=True) as page:
        page.open().show(CHILD, STEADY)
        expect(page.plot.locator("circle")).to_have_count(40)
        told = page.panel.locator(".sciart-told")
        page.page.touchscreen.tap(*place(page, 5 / 19, 0.9))
        expect(told.locator("div")).to_have_text(["step 6 of 20", "child_style: 0.411", "watercolor-v2: 0.5"])
        page.page.touchscreen.tap(*centre(page.handles.nth(1)))
        expect(told.locator("div").first).to_have_text("step 11 of 20")
        assert page.recipe()["loras"] == [CHILD, STEADY]
        page.page.touchscreen.tap(*centre(page.button("+ Add LoRA")))
        expect(told).to_be_hidden()


def test_the_hires_pass_is_drawn_beside_and_turns_leave_the_line(page):
    page.show(CHILD, {**STEADY, "hires": {"weight": 0.1}}, compose="switch", composition={"period": 2})
    dots = page.plot.locator("[data-curve='1'] circle")
    expect(page.plot.locator(".sciart-te")).to_have_count(2)
    heights = {round(float(dot.get_attribute("cy"))) for dot in dots.all()}
    assert len(heights) == 2  # 0.5 in its turns, 0 in the other's


def test_a_finger_drags_handles_and_scrolls_beside_them(address, browser):
    with opened(address, browser, 390, TALL, has_touch=True, is_mobile=True) as page:
        page.open().show(CHILD, STEADY)
        assert page.handles.nth(1).evaluate("(handle) => getComputedStyle(handle.firstChild).touchAction") == "none"
        assert page.plot.evaluate("(svg) => getComputedStyle(svg).touchAction") == "manipulation"
        start, end = centre(page.handles.nth(1)), place(page, 0.8, 0.3)
        touch = page.page.context.new_cdp_session(page.page)
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [dict(zip("xy", start))]})
        for share in (0.25, 0.5, 0.75, 1):
            point = {axis: a + (b - a) * share for axis, a, b in zip("xy", start, end)}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.row(0).locator("[data-field=schedule]")).to_have_value("0.2@0, 0.3@0.8")
