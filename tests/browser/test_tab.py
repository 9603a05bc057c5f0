"""The tab in a browser: an analysis from a picture to a saved folder, cancel, wrong input, geometry, presets."""

from __future__ import annotations

import json
import re

import pytest
from dropdowns import choose
from panel_page import new_tab

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

RECIPE = '{"loras": [{"name": "child", "weight": 1}]}'


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def page(request, address, browser):
    with new_tab(browser, request.param, 900) as page:
        page.goto(address)
        open_tab(page, "SciArt")
        yield page


def open_tab(page, name):
    page.locator(".tab-nav button:visible", has_text=name).first.click()


def option(page, name):
    return page.locator(f"ul.options li[aria-label='{name}']")


def field(page, name):
    return page.locator(f"#{name} textarea, #{name} input").first


def test_a_picture_is_explained_and_saved(page):
    page.get_by_role("button", name="The last picture").click()
    expect(field(page, "sciart_influence_infotext")).to_have_value(
        'a rocket\nSteps: 4, Sampler: Euler a, CFG scale: 6.5, Seed: 7, SciArt: "{}"')
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#sciart_influence_status progress")).to_be_visible()
    expect(page.frame_locator("iframe.sciart-report").locator("li").first).to_contain_text("child: ", timeout=20_000)
    report = page.frame_locator("iframe.sciart-report")
    expect(report.get_by_role("heading", name="What each LoRA did")).to_be_visible()
    expect(report.locator("li").nth(1)).to_contain_text("other <b>: ")
    page.get_by_role("button", name="Save as a folder").click()
    expect(page.locator("#sciart_influence_status.prose")).to_contain_text("Saved: ")
    assert page.locator("#sciart_influence_status.prose").inner_text().endswith("index.html")
    inside = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= inside


def explained(page, meanwhile=lambda: None):
    page.get_by_role("button", name="The last picture").click()
    expect(field(page, "sciart_influence_infotext")).not_to_have_value("")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#sciart_influence_status progress")).to_be_visible()
    meanwhile()
    report = page.frame_locator("iframe.sciart-report")
    expect(report.get_by_role("img", name="Heatmap").first).to_be_visible(timeout=20_000)
    return report


@pytest.mark.parametrize("height", [800, 1000])
def test_what_was_explained_is_in_sight_with_its_first_heatmaps(page, height):
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    report = explained(page)
    expect(report.locator("li").first).to_be_in_viewport(ratio=1)
    expect(report.get_by_role("img", name="Heatmap").first).to_be_in_viewport(ratio=1)
    expect(page.locator("#sciart_influence_status.prose")).to_have_text("")


def test_a_report_does_not_scroll_away_from_who_is_typing(page):
    page.set_viewport_size({"width": page.viewport_size["width"], "height": 700})
    report = explained(page, meanwhile=lambda: field(page, "sciart_influence_infotext").focus())
    expect(report.get_by_role("heading", name="Where")).to_have_count(1)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('#sciart_influence_infotext').getBoundingClientRect().top") > 0


def test_another_recipe_other_subsets_and_words(page):
    field(page, "sciart_influence_infotext").fill("a rocket\nSteps: 4, Seed: 7, Size: 64x64")
    field(page, "sciart_influence_recipe").fill(RECIPE)
    page.get_by_label("each LoRA alone").check()
    field(page, "sciart_influence_words").fill("rocket, robot")
    page.get_by_role("button", name="Explain").click()
    expect(page.frame_locator("iframe.sciart-report").locator("li").first).to_contain_text("child: ΔE ", timeout=20_000)
    report = page.frame_locator("iframe.sciart-report")
    expect(report.get_by_text("robot", exact=True).first).to_be_visible()
    expect(report.locator("pre")).to_contain_text('"name": "child"')


def test_it_can_be_cancelled_and_goes_on(page):
    page.get_by_role("button", name="The last picture").click()
    expect(field(page, "sciart_influence_infotext")).not_to_have_value("")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#sciart_influence_status progress")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#sciart_influence_status.prose")).to_contain_text("of 4 pictures")
    page.get_by_role("button", name="Explain").click()
    expect(page.frame_locator("iframe.sciart-report").locator("li").first).to_contain_text("child: ", timeout=20_000)


def test_what_is_wrong_is_told(page):
    status = page.locator("#sciart_influence_status .sciart-error")
    page.get_by_role("button", name="Save as a folder").click()
    expect(status).to_contain_text("nothing to save yet")
    page.get_by_role("button", name="Explain").click()
    expect(status).to_contain_text("picture: missing")
    field(page, "sciart_influence_infotext").fill("a rocket\nSteps: 4, Seed: 7, Size: 64x64")
    page.get_by_role("button", name="Explain").click()
    expect(status).to_contain_text("recipe: missing")
    field(page, "sciart_influence_recipe").fill("{")
    page.get_by_role("button", name="Explain").click()
    expect(status).to_contain_text("recipe: not valid JSON")
    field(page, "sciart_influence_recipe").fill("[1]")
    page.get_by_role("button", name="Explain").click()
    expect(status).to_contain_text("recipe: expected a JSON object, got list")


def test_its_picture_can_be_sent_to_txt2img(page):
    page.get_by_role("button", name="The last picture").click()
    expect(field(page, "sciart_influence_infotext")).not_to_have_value("")
    page.get_by_role("button", name="Send to txt2img").click()
    open_tab(page, "txt2img")
    expect(field(page, "txt2img_seed")).to_have_value("7")
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("a rocket")


def test_what_txt2img_would_make_now_is_explained(page):
    open_tab(page, "txt2img")
    field(page, "txt2img_prompt").fill("a robot: \"at home\"")
    field(page, "txt2img_seed").fill("11")
    page.locator("#sciart_txt2img .icon").click()
    panel = page.locator("#sciart_txt2img_panel")
    panel.get_by_role("button", name="+ Add LoRA").click()
    panel.locator("[data-index] [data-field='name']").first.fill("child_style")
    expect(page.locator("#sciart_txt2img_recipe textarea")).to_have_value(re.compile("child_style"))
    open_tab(page, "SciArt")
    page.get_by_role("button", name="As txt2img is set now").click()
    settings = r"Steps: 20, Sampler: DPM\+\+ 2M, CFG scale: 7, Seed: 11, Size: 640x640"
    expect(field(page, "sciart_influence_infotext")).to_have_value(
        re.compile(f'^a robot: "at home"\n{settings}, SciArt: ".*child_style'))
    page.get_by_role("button", name="Explain").click()
    expect(page.frame_locator("iframe.sciart-report").locator("li").first).to_contain_text("child: ", timeout=20_000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_is_in_the_theme_of_the_page(page, theme):
    page.goto(f"{page.url.split('?')[0]}?__theme={theme}")
    open_tab(page, "SciArt")
    page.get_by_role("button", name="The last picture").click()
    expect(field(page, "sciart_influence_infotext")).not_to_have_value("")
    page.get_by_role("button", name="Explain").click()
    text = page.frame_locator("iframe.sciart-report").get_by_role("heading", name="What each LoRA did")
    expect(text).to_be_visible(timeout=20_000)
    bright = sum(map(int, re.findall(r"\d+", text.evaluate("node => getComputedStyle(node).color"))[:3]))
    assert bright > 600 if theme == "dark" else bright < 165


def test_loras_are_compared(page):
    open_tab(page, "Geometry")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#sciart_geometry_status .sciart-error")).to_contain_text("give two or more")
    with page.expect_response("**/run/predict**"):
        page.get_by_role("button", name="List the LoRAs").click()
    names = page.locator("#sciart_geometry_loras input")
    for name in ("child_style", "science_fiction"):
        choose(page, "#sciart_geometry_loras", name)
        names.press("Escape")
        names.blur()
    page.get_by_role("button", name="Compare").click()
    expect(page.frame_locator("#sciart_geometry_report iframe").locator("p")).to_have_text(
        "child_style and science_fiction")


def test_presets_are_read_saved_exported_imported_and_deleted(page, tmp_path):
    open_tab(page, "Presets")
    status, name = page.locator("#sciart_presets_status.prose"), field(page, "sciart_presets_name")
    page.get_by_role("button", name="List the presets").click()
    choose(page, "#sciart_presets_chosen", "two-subjects")
    expect(name).to_have_value("two-subjects")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(status).to_contain_text("shipped with SciArt and cannot be replaced")
    own = f"mine-{page.viewport_size['width']}"
    name.fill(own)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(status).to_contain_text(f"{own} is saved")
    page.get_by_role("button", name="Export mine").click()
    with page.expect_download() as download:
        page.locator("#sciart_presets_file a").first.click()
    exported = tmp_path / "presets.json"
    download.value.save_as(exported)
    assert own in json.loads(exported.read_text(encoding="utf-8"))
    page.get_by_role("button", name="Delete").click()
    expect(status).to_contain_text(f"{own} is deleted")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import").click()
    chooser.value.set_files(exported)
    expect(status).to_contain_text("presets are imported")
    page.get_by_role("button", name="Delete").click()
    expect(status).to_contain_text(f"{own} is deleted")
    field(page, "sciart_presets_text").fill("[]")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(status).to_contain_text("expected a JSON object")


def test_what_is_answered_at_once_does_not_wait_in_the_queue(page):
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.get_by_role("button", name="The last picture").click()
    expect(field(page, "sciart_influence_infotext")).not_to_have_value("")
    open_tab(page, "Presets")
    for name in ("List the presets", "Save", "Delete", "Export mine", "Add the prompts as styles"):
        with page.expect_response("**/run/predict**"):
            page.get_by_role("button", name=name, exact=True).click()
    with page.expect_response("**/run/predict**"):
        choose(page, "#sciart_presets_chosen", "two-subjects")
    assert sockets == []


def test_a_page_that_is_busy_for_seconds_gets_its_answer(page):
    open_tab(page, "Presets")
    page.evaluate("""() => {
        document.querySelector("#sciart_presets_delete").click();
        setTimeout(() => { for (const began = Date.now(); Date.now() - began < 6500;); }, 4);
    }""")
    expect(page.locator("#sciart_presets_status .sciart-error")).to_contain_text("name: no preset", timeout=15_000)
    expect(page.get_by_text("Connection errored out")).to_have_count(0)


def test_every_control_is_reached_by_the_keyboard(page):
    page.locator("#sciart_influence_infotext textarea").focus()
    reached = set()
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id^=sciart_]')?.id"))
    for name in ("last", "asked", "send", "recipe", "words", "run", "cancel", "save"):
        assert f"sciart_influence_{name}" in reached
