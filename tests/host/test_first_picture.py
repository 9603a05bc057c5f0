"""The README's five minutes to the first picture, step by step on the real page, with the tiny model.

With SCIART_SCREENSHOTS naming a folder (`docs`), what is seen on the way is written there: the README's pictures.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT
from PIL import Image
from server import ONE_THREAD, HostServer
from test_page import ROLES, Tab, recipe_in, sync_api

from sciart_ext.recipe import parse_recipe

expect = sync_api.expect
pytestmark = pytest.mark.browser
SCHEDULE = "0.2@0, 0.65@0.5"


@pytest.fixture(scope="module")
def server(browser, tiny_world_models: Path) -> Iterator[HostServer]:
    with HostServer(models=tiny_world_models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD, ui=True) as server:
        yield server


@pytest.fixture
def tab(browser, server) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#sciart_txt2img_enabled", state="attached", timeout=120_000)
    yield Tab(page)
    context.close()


def test_the_readmes_five_minutes(tab: Tab, server: HostServer) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for word in ("**SciArt**", "*Science imagination*", "**Prompt & settings too**", "**Generate**", f"`{SCHEDULE}`"):
        assert word in readme
    tab.open()
    tab.preset("Science imagination").check()
    for role, lora in ROLES.items():
        expect(tab.panel.locator(f".sciart-presets [data-role={role}][data-suggested]")).to_have_value(lora)
    assert server.get("/sciart/v1/roles").json == {}, "bound by looking at the preset"
    tab.button("Prompt & settings too").click()
    expect(tab.lines).to_have_count(3)
    assert server.get("/sciart/v1/roles").json == ROLES
    given = server.get("/sciart/v1/presets/science-imagination").json["txt2img"]
    expect(tab.prompt).to_have_value(given["prompt"])
    for name in ("steps", "seed", "cfg_scale", "width", "height"):
        expect(tab.number(name)).to_have_value(str(given[name]))
    shot(tab.page, tab.panel, "first-preset.webp")

    tab.prompt.fill("a rocket and a planet in space")  # the tiny model knows few words, and is small
    for name in ("width", "height"):
        tab.number(name).fill("128")
    first = tab.generate()
    assert [(lora.name, lora.weight) for lora in parse_recipe(recipe_in(first)).loras] == [
        ("child", 0.65), ("watercolor", 0.55), ("science", 0.5)]
    assert "Seed: 777," in first and "Steps: 35," in first

    tab.field(0, "schedule").fill(SCHEDULE)
    expect(tab.lines).to_have_count(3)
    shown = tab.page.locator("#html_info_txt2img p").first
    tab.find("generate").click()
    expect(shown).to_contain_text("0.2", timeout=60_000)
    assert parse_recipe(recipe_in(shown.inner_text())).loras[0].schedule == [[0.0, 0.2], [0.5, 0.65]]
    expect(tab.find("gallery img").first).to_be_visible()
    shot(tab.page, tab.page, "txt2img.webp", full_page=True)


def shot(page: sync_api.Page, what: sync_api.Page | sync_api.Locator, name: str, **options) -> None:
    """A screenshot, where they are asked for."""
    if folder := os.environ.get("SCIART_SCREENSHOTS"):
        page.wait_for_timeout(500)
        taken = what.screenshot(**options)
        with Image.open(io.BytesIO(taken)) as picture:
            picture.convert("RGB").save(Path(folder) / name, quality=88, method=6)
