"""The pictures of the panel and the pipelines in the docs: what they show works, with the tiny model.

With SCIART_SCREENSHOTS=docs they are taken again.
"""

from __future__ import annotations

import json

import pytest
from dropdowns import choose
from server import ONE_THREAD, HostServer
from test_first_picture import expect, server, shot  # noqa: F401  (a fixture)
from test_page import opened

pytestmark = pytest.mark.browser

PRESET = {
    "title": "Robot portrait", "recipe": {"loras": [{"name": "child", "weight": 0.6},
                                                    {"name": "watercolor", "weight": 0.5}]},
    "txt2img": {"prompt": "a robot in space", "steps": 20, "seed": 777, "cfg_scale": 6, "width": 128, "height": 128,
                "sampler_name": "DPM++ 2M", "scheduler": "Karras"},
    "pipeline": {"img2img": {"denoising_strength": 0.3}, "upscale": {"upscaler": "Lanczos", "scale": 3}}}
CURVES = {"loras": [{"name": "child", "schedule": "0.2@0, 0.65@0.5", "curve": "cosine"},
                    {"name": "watercolor", "schedule": "0.7@0, 0.3@1"}, {"name": "science", "weight": 0.4}]}
SUBJECTS = {"compose": "contrastive", "loras": [
    {"name": "red-striped-rocket", "weight": 1, "subject": "rocket", "trigger": "red striped"},
    {"name": "yellow-visor-robot", "weight": 0.9, "subject": "robot", "trigger": "yellow visor"},
    {"name": "watercolor", "schedule": "0@0, 0.6@1"}]}


def test_a_portrait_in_three_stages(browser, server: HostServer) -> None:  # noqa: F811
    server.post("/sciart/v1/presets", {"name": "robot-portrait", "preset": PRESET})
    with opened(browser, server, height=900, patience=60_000) as tab:
        makes_the_portrait(tab.page)


def makes_the_portrait(page) -> None:
    page.locator("#tabs > .tab-nav button", has_text="SciArt").click()
    page.locator("#sciart_tabs .tab-nav button", has_text="Pipeline").click()
    with page.expect_response("**/run/predict**"):
        page.locator("#sciart_pipeline_list").click()
    choose(page, "#sciart_pipeline_preset", "robot-portrait", typed="robot")
    expect(page.locator("#sciart_pipeline_stages").get_by_label("ADetailer")).not_to_be_checked()
    page.locator("#sciart_pipeline_run").click()
    gallery = page.locator("#sciart_pipeline_gallery")
    expect(gallery).to_contain_text("upscale 384 × 384", timeout=120_000)
    expect(gallery.locator(".thumbnails button")).to_have_count(3)
    shot(page, page, "tab-pipeline.webp")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_panel_with_three_curves(browser, server: HostServer, theme: str) -> None:  # noqa: F811
    with opened(browser, server, query=f"?__theme={theme}", patience=60_000) as tab:
        tab.open().preset("Science imagination").check()
        tab.paste(infotext_of(CURVES))
        expect(tab.lines).to_have_count(3)
        shot(tab.page, tab.panel, f"panel-{theme}.webp")


def test_the_panel_with_two_subjects_and_a_style(browser, server: HostServer) -> None:  # noqa: F811
    with opened(browser, server, patience=60_000) as tab:
        tab.open().preset("Two subjects in a child's science-imagination drawing").check()
        tab.paste(infotext_of(SUBJECTS))
        expect(tab.lines).to_have_count(3)
        shot(tab.page, tab.panel, "panel-steering.webp")


def test_the_panel_on_a_phone(browser, server: HostServer) -> None:  # noqa: F811
    with opened(browser, server, width=390, height=844, patience=60_000, has_touch=True, device_scale_factor=2) as tab:
        tab.open().preset("Science imagination").check()
        tab.paste(infotext_of(CURVES))
        expect(tab.lines).to_have_count(3)
        tab.panel.locator("svg.sciart-plot").first.scroll_into_view_if_needed()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
        shot(tab.page, tab.panel, "panel-phone.webp")


def test_the_panel_in_korean(browser, tiny_world_models) -> None:
    with (HostServer(models=tiny_world_models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD, ui=True,
                     settings={"localization": "ko_KR", "sciart_panel_open": True}) as korean,
          opened(browser, korean, patience=60_000, locale="ko-KR") as tab):
        tab.paste(infotext_of(CURVES))
        expect(tab.lines).to_have_count(3)
        expect(tab.panel).to_contain_text("가중치")
        shot(tab.page, tab.panel, "panel-korean.webp")


def infotext_of(recipe: dict) -> str:
    return f"a rocket and a robot in space\nSteps: 20, Sampler: Euler, Seed: 1, SciArt: {json.dumps(json.dumps(recipe))}"
