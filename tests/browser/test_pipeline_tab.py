"""The tab's pipeline in a browser: a missing extension is told, stages are ticked off, pictures shown, cancel."""

from __future__ import annotations

import io
import json
import re

import pytest
from dropdowns import choose
from panel_page import new_tab
from PIL import Image
from test_tab import field, open_tab, option

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def page(request, address, browser):
    with new_tab(browser, request.param, 900) as page:
        page.goto(address)
        open_tab(page, "SciArt")
        page.locator("#sciart_tabs .tab-nav button", has_text="Pipeline").click()
        yield page


def status(page):
    return page.locator("#sciart_pipeline_status.prose")


def generated(page) -> dict:
    """What was asked, after all pictures are there."""
    page.get_by_role("button", name="Generate").last.click()
    expect(field(page, "sciart_pipeline_made")).to_have_value(re.compile(r"^\{"), timeout=20_000)
    return json.loads(field(page, "sciart_pipeline_made").input_value())


def test_what_is_missing_is_told_and_can_be_ticked_off(page):
    page.get_by_role("button", name="Generate").last.click()
    expect(status(page).locator(".sciart-error")).to_contain_text("ADetailer is not installed")
    page.get_by_label("ADetailer (faces)").uncheck()
    asked = generated(page)
    assert asked == {"preset": "science-imagination-profile-cool", "txt2img": {}, "save_images": True,
                     "without": ["adetailer"],
                     "pipeline": {"controlnet": {"pose": "portrait"}, "img2img": {}, "upscale": {}}}
    expect(status(page)).to_have_text("adetailer: nothing to repair in <this>")
    expect(page.locator("#sciart_pipeline_gallery img").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_every_choice_is_asked_for(page):
    chosen = page.locator("#sciart_pipeline_preset input")
    chosen.fill("warm")
    option(page, "science-imagination-profile-warm").click()
    field(page, "sciart_pipeline_prompt").fill("a girl with goggles")
    field(page, "sciart_pipeline_seed").fill("7")
    for name in ("ADetailer (faces)", "Upscale"):
        page.get_by_label(name, exact=True).uncheck()
    page.get_by_label("waving").check()
    assert generated(page) == {
        "preset": "science-imagination-profile-warm", "txt2img": {"prompt": "a girl with goggles", "seed": 7},
        "save_images": True, "without": ["adetailer", "upscale"],
        "pipeline": {"controlnet": {"pose": "waving"}, "img2img": {}}}


def test_a_preset_ticks_its_own_stages_and_pose(page, address):
    page.locator("#sciart_tabs .tab-nav button", has_text="Presets").click()
    name = f"waving-{page.viewport_size['width']}"
    field(page, "sciart_presets_name").fill(name)
    field(page, "sciart_presets_text").fill(json.dumps({
        "recipe": {"loras": [{"name": "child_style", "weight": 1}]},
        "pipeline": {"controlnet": {"pose": "waving"}, "upscale": {"scale": 3}}}))
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#sciart_presets_status.prose")).to_contain_text("is saved")
    page.locator("#sciart_tabs .tab-nav button", has_text="Pipeline").click()
    with page.expect_response("**/run/predict**"):
        page.locator("#sciart_pipeline_list").click()
    choose(page, "#sciart_pipeline_preset", name)
    expect(page.get_by_role("radio", name="waving")).to_be_checked()
    ticks = page.locator("#sciart_pipeline_stages input")
    assert [tick.is_checked() for tick in ticks.all()] == [True, False, False, True]
    page.locator("#sciart_tabs .tab-nav button", has_text="Presets").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#sciart_presets_status.prose")).to_contain_text("is deleted")


def test_a_seed_that_is_no_number_is_told(page):
    field(page, "sciart_pipeline_seed").fill("seven")
    page.get_by_role("button", name="Generate").last.click()
    expect(status(page).locator(".sciart-error")).to_contain_text("txt2img.seed: expected a whole number, got 'seven'")


def test_a_pose_of_one_s_own(page):
    page.get_by_label("ADetailer (faces)").uncheck()
    expect(page.locator("#sciart_pipeline_photograph")).to_be_hidden()
    page.get_by_label("my picture").check()
    expect(page.locator("#sciart_pipeline_photograph")).to_be_visible()
    page.get_by_role("button", name="Generate").last.click()
    expect(status(page).locator(".sciart-error")).to_contain_text("my picture is chosen, but none is given")
    file = io.BytesIO()
    Image.new("RGB", (32, 48), "red").save(file, "PNG")
    page.locator("#sciart_pipeline_picture input[type=file]").set_input_files(
        {"name": "pose.png", "mimeType": "image/png", "buffer": file.getvalue()})
    expect(page.locator("#sciart_pipeline_picture img")).to_be_visible()
    page.get_by_label("It is a photograph").check()
    control = generated(page)["pipeline"]["controlnet"]
    assert control["preprocessor"] == "openpose_full" and control["pose"].startswith("data:image/png;base64,")


def test_it_can_be_cancelled(page):
    page.get_by_label("ADetailer (faces)").uncheck()
    page.get_by_role("button", name="Generate").last.click()
    expect(status(page).locator("progress")).to_be_visible()
    expect(status(page)).to_contain_text("img2img (2 of 3)")
    page.get_by_role("button", name="Cancel").last.click()
    expect(status(page)).to_have_text("Cancelled; these pictures were made")


def test_the_panel_leads_to_the_stages_of_a_preset(page):
    open_tab(page, "txt2img")
    panel = page.locator("#sciart_txt2img_panel")
    page.locator("#sciart_txt2img .label-wrap").first.click()
    panel.get_by_role("radio", name="Science imagination", exact=True).check()
    expect(panel.get_by_role("button", name="Its stages…")).to_be_hidden()
    panel.get_by_role("radio", name="Profile picture, warm").check()
    panel.get_by_role("button", name="Its stages…").click()
    expect(page.locator("#sciart_pipeline_run")).to_be_visible()
