"""The README's five minutes to the first picture, step by step on the real page, with the tiny model: in English, and
in Korean by the Korean README.

With SCIART_SCREENSHOTS naming a folder (`docs`), what is seen on the way is written there: the READMEs' pictures.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Readme:
    """A README and what it calls things; ending: of its pictures' names."""

    page: str
    preset: str
    apply: str
    more: str
    schedule: str
    presets: str
    generate: str
    ending: str = ""

    @property
    def told(self) -> tuple[str, ...]:
        return ("**SciArt**", f"*{self.preset}*", f"**{self.apply}**", f"**{self.generate}**", f"*{self.more}*",
                f"*{self.schedule}*", f"`{SCHEDULE}`")


ENGLISH = Readme("README.md", "Science imagination", "Prompt & settings too", "More", "Schedule", "Preset", "Generate")
KOREAN = Readme("README.ko.md", "과학상상화", "프롬프트와 설정까지 적용", "더 보기", "스케줄", "프리셋", "생성", "-korean")


@pytest.fixture(scope="module")
def server(browser, tiny_world_models: Path) -> Iterator[HostServer]:
    with started(tiny_world_models) as server:
        yield server


@contextmanager
def started(models: Path, **settings: object) -> Iterator[HostServer]:
    with HostServer(models=models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD, ui=True,
                    settings=settings) as server:
        yield server


@contextmanager
def opened(browser, server: HostServer) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#sciart_txt2img_enabled", state="attached", timeout=120_000)
    yield Tab(page)
    context.close()


def test_the_readmes_five_minutes(browser, server: HostServer) -> None:
    with opened(browser, server) as tab:
        takes_the_steps(tab, server, ENGLISH)


def test_the_korean_readmes_five_minutes(browser, tiny_world_models: Path) -> None:
    with started(tiny_world_models, localization="ko_KR") as server, opened(browser, server) as tab:
        takes_the_steps(tab, server, KOREAN)


def takes_the_steps(tab: Tab, server: HostServer, readme: Readme) -> None:
    text = (ROOT / readme.page).read_text(encoding="utf-8")
    for words in readme.told:
        assert words in text, words
    expect(tab.page.locator("#txt2img_generate")).to_have_text(readme.generate)
    tab.page.locator("#sciart_txt2img .label-wrap .icon").first.click()
    expect(tab.panel.get_by_role("radiogroup", name=readme.presets, exact=True)).to_be_visible()
    tab.preset(readme.preset).check()
    for role, lora in ROLES.items():
        expect(tab.panel.locator(f".sciart-presets [data-role={role}][data-suggested]")).to_have_value(lora)
    assert server.get("/sciart/v1/roles").json == {}, "bound by looking at the preset"
    tab.button(readme.apply).click()
    expect(tab.lines).to_have_count(3)
    assert server.get("/sciart/v1/roles").json == ROLES
    given = server.get("/sciart/v1/presets/science-imagination").json["txt2img"]
    expect(tab.prompt).to_have_value(given["prompt"])
    for name in ("steps", "seed", "cfg_scale", "width", "height"):
        expect(tab.number(name)).to_have_value(str(given[name]))
    shot(tab.page, tab.panel, f"first-preset{readme.ending}.webp")

    tab.prompt.fill("a submarine in the sea")  # the tiny model knows few words, and is small
    for name in ("width", "height"):
        tab.number(name).fill("128")
    first = tab.generate()
    assert [(lora.name, lora.weight) for lora in parse_recipe(recipe_in(first)).loras] == [
        ("child", 0.65), ("watercolor", 0.55), ("science", 0.5)]
    assert "Seed: 777," in first and "Steps: 35," in first

    expect(tab.rows.first.locator("summary").first).to_have_text(readme.more)
    field = tab.field(0, "schedule")
    expect(tab.panel.locator(f"label[for='{field.get_attribute('id')}']")).to_contain_text(readme.schedule)
    field.fill(SCHEDULE)
    expect(tab.lines).to_have_count(3)
    shown = tab.page.locator("#html_info_txt2img p").first
    tab.find("generate").click()
    expect(shown).to_contain_text("0.2", timeout=60_000)
    assert parse_recipe(recipe_in(shown.inner_text())).loras[0].schedule == [[0.0, 0.2], [0.5, 0.65]]
    expect(tab.find("gallery img").first).to_be_visible()
    shot(tab.page, tab.page, f"txt2img{readme.ending}.webp", full_page=True)


def shot(page: sync_api.Page, what: sync_api.Page | sync_api.Locator, name: str, **options) -> None:
    """A screenshot, where they are asked for."""
    if folder := os.environ.get("SCIART_SCREENSHOTS"):
        page.wait_for_timeout(500)
        taken = what.screenshot(**options)
        with Image.open(io.BytesIO(taken)) as picture:
            picture.convert("RGB").save(Path(folder) / name, quality=88, method=6)
