"""The README's film of the panel: a preset, a picture, a curve that is drawn, another picture, on the real page.

With SCIART_SCREENSHOTS=docs it is filmed again, in English and in Korean.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server import ONE_THREAD, HostServer
from test_page import Tab, opened, recipe_in, sync_api

from sciart_ext.recipe import parse_recipe

expect = sync_api.expect
pytestmark = pytest.mark.browser

HEIGHT = 1400
WIDTH = 860
"""of the film, in pixels"""
MOST_BYTES = 2_000_000
PRESET = {
    "recipe": {"loras": [{"name": "child", "weight": 0.8}, {"name": "watercolor", "weight": 1}]},
    "txt2img": {"prompt": "a submarine in the sea", "steps": 16, "seed": 2, "cfg_scale": 6, "width": 128, "height": 128,
                "sampler_name": "DPM++ 2M", "scheduler": "Automatic"}}
WORDS = {"en": {"title": "Submarine", "description": "Two styles at once, at weights that suit the tiny model.",
                "button": "Prompt & settings too", "file": "panel-film.webp"},
         "ko": {"title": "잠수함", "description": "두 화풍을 한꺼번에, 작은 모델에 맞는 가중치로.",
                "button": "프롬프트와 설정까지 적용", "file": "panel-film-korean.webp"}}
# as the pointer of a mouse, which screenshots do not have
POINTER = """() => {
    const dot = document.createElement("div");
    dot.style = "position: fixed; z-index: 99999; width: 22px; height: 22px; margin: -11px; border-radius: 50%; " +
        "background: #e8590c99; border: 2px solid #fff; pointer-events: none; left: -50px";
    document.body.append(dot);
    const follow = (event) => { dot.style.left = `${event.clientX}px`; dot.style.top = `${event.clientY}px`; };
    document.addEventListener("pointermove", follow, true);
}"""


@dataclass
class Film:
    """Frames of what the page shows, and how long each stays, in milliseconds."""

    page: sync_api.Page
    frames: list[Image.Image] = field(default_factory=list)
    milliseconds: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    """the frames in which a new picture is seen"""

    def shows(self, milliseconds: int) -> None:
        with Image.open(io.BytesIO(self.page.screenshot())) as taken:
            height = round(taken.height * WIDTH / taken.width)
            self.frames.append(taken.convert("RGB").resize((WIDTH, height), Image.LANCZOS))
        self.milliseconds.append(milliseconds)

    def points_at(self, what: sync_api.Locator, milliseconds: int = 500) -> None:
        what.hover()
        self.shows(milliseconds)

    def drags(self, start: tuple[float, float], end: tuple[float, float], frames: int = 8) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for k in range(1, frames + 1):
            self.page.mouse.move(*(a + (b - a) * k / frames for a, b in zip(start, end)))
            self.shows(110)
        self.page.mouse.up()

    def save(self, path: Path) -> None:
        self.frames[0].save(path, "WEBP", save_all=True, append_images=self.frames[1:], duration=self.milliseconds,
                            loop=0, quality=82, method=6)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_preset_a_picture_a_drawn_curve_and_what_it_changes(browser, tiny_world_models, tmp_path, language) -> None:
    words = WORDS[language]
    settings = {"sciart_panel_open": True} | ({"localization": "ko_KR"} if language == "ko" else {})
    with HostServer(models=tiny_world_models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD, ui=True,
                    settings=settings) as server:
        server.post("/sciart/v1/presets", {"name": "submarine", "preset": {
            "title": words["title"], "description": words["description"], **PRESET}})
        with opened(browser, server, height=HEIGHT, patience=60_000,
                    locale="ko-KR" if language == "ko" else "en-US") as tab:
            film = Film(tab.page)
            first, second = makes_two_pictures(tab, film, words)
    assert [lora.weight for lora in parse_recipe(first).loras] == [0.8, 1]
    child, watercolor = parse_recipe(second).loras
    assert child.weight == 0.8 and watercolor.schedule[0][1] == 1 and watercolor.schedule[-1][1] < 0.3
    before, after = (np.asarray(film.frames[k].crop((WIDTH // 2, 0, WIDTH, WIDTH // 2)), int) for k in film.pictures)
    assert np.abs(before - after).mean() > 2
    path = Path(os.environ.get("SCIART_SCREENSHOTS", tmp_path)) / words["file"]
    film.save(path)
    assert path.stat().st_size < MOST_BYTES


def makes_two_pictures(tab: Tab, film: Film, words: dict[str, str]) -> tuple[str, str]:
    """The recipes of both: with the preset's constant weights, and with watercolor drawn down to 0 at a quarter."""
    page, card, button = tab.page, tab.preset(words["title"]), tab.button(words["button"])
    expect(card).to_be_visible()
    page.evaluate(POINTER)
    page.evaluate("""() => {
        document.body.style.minHeight = "3000px";  // so that what is added moves nothing
        scrollBy(0, document.querySelector("#txt2img_results").getBoundingClientRect().top - 8);
    }""")
    film.shows(1200)
    card.check()
    film.points_at(card, 900)
    film.points_at(button)
    button.click()
    expect(tab.lines).to_have_count(2)
    film.shows(1300)
    first = makes(tab, film, "weight")
    tab.panel.locator(".sciart-curves").locator(".sciart-chip", has_text="watercolor").click()
    film.shows(500)
    page.mouse.dblclick(*place(page, 1, 0.25, 1))
    expect(tab.handles).to_have_count(2)
    film.shows(500)
    film.drags(place(page, 1, 0.25, 1), place(page, 1, 0.25, 0))
    film.shows(1200)
    return first, makes(tab, film, "schedule")


def makes(tab: Tab, film: Film, told: str) -> str:
    """Presses Generate, which is above the window; the recipe in the infotext that tells this."""
    tab.page.evaluate("document.querySelector('#txt2img_generate').click()")
    film.shows(500)
    shown = tab.page.locator("#html_info_txt2img p").first
    expect(shown).to_contain_text(told, timeout=120_000)
    expect(tab.find("gallery img").first).to_be_visible()
    expect(tab.find("results").locator(".livePreview, .progressDiv")).to_have_count(0)
    tab.page.wait_for_timeout(500)
    film.shows(2500)
    film.pictures.append(len(film.frames) - 1)
    return recipe_in(shown.inner_text())


def place(page: sync_api.Page, index: int, progress: float, weight: float) -> tuple[float, float]:
    """Where a point of a LoRA's curve is in the window."""
    frame = page.evaluate("""(index) => {
        const svg = document.querySelector("#sciart_txt2img_panel svg.sciart-plot");
        const row = svg.querySelectorAll("[data-curve]")[index];
        const dots = [...row.querySelectorAll("circle")].map((dot) => dot.getBoundingClientRect());
        const rules = [...svg.querySelectorAll(".sciart-axes text[text-anchor=end]")].map((text) =>
            [Number(text.textContent), text.previousSibling.getBoundingClientRect().y]);
        return {left: dots[0].x + dots[0].width / 2, right: dots.at(-1).x + dots.at(-1).width / 2, rules};
    }""", index)
    (low, bottom), (high, top) = frame["rules"][0], frame["rules"][-1]
    return (frame["left"] + progress * (frame["right"] - frame["left"]),
            bottom + (weight - low) / (high - low) * (top - bottom))
