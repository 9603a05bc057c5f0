"""The page in Korean: every text of ours that can be seen is translated, by the host's own localization files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import ONE_THREAD, SCIART, HostServer
from test_page import ROLES, Tab, expect, opened

from sciart_ext.host.webui.axes import axes

pytestmark = pytest.mark.browser

FILES = {name: SCIART / "localizations" / f"{name}.json" for name in ("ko_KR", "en_US")}
KOREAN = json.loads(FILES["ko_KR"].read_text(encoding="utf-8"))
HANGUL, LATIN = re.compile("[가-힣]"), re.compile("[A-Za-z]{2}")
SEEN = """(roots) => {
    // what is visible of ours; not what users write, nor what Python says of a recipe, with its names and numbers
    const skipped = "script, style, textarea, iframe, datalist, .sciart-hidden, .sciart-error, .sciart-note, " +
        ".sciart-notes, svg title, [data-index] option";
    const found = new Set();
    for (const root of roots.flatMap((one) => [...document.querySelectorAll(one)])) {
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const node = walker.currentNode;
            if (!node.parentElement.closest(skipped) || node.parentElement.closest("select[data-field]:not([data-role])")) {
                found.add(node.textContent.trim());
            }
        }
        for (const node of [root, ...root.querySelectorAll("*")]) {
            if (node.closest(".sciart-hidden") || node.tagName === "svg") continue;
            for (const name of ["title", "placeholder", "aria-label", "label"]) {
                if (node.getAttribute(name)) found.add(node.getAttribute(name).trim());
            }
        }
    }
    return [...found];
}"""
PATIENCE = 120_000
"""milliseconds; the host's page is large, and the machine may be busy"""
PANEL, TAB, SETTINGS = "#sciart_txt2img", "#tab_sciart_tab", "#settings_sciart"
NAMES = r"child|watercolor|science|tiny\S*|LoRA|LoCon"
FILE = r".*\.(safetensors|json)(: .*)?"
"""a file's name, and what Python says of it"""
NOT_TEXT = re.compile(rf"^([\d.,@ %×x]+( [KM]B)?|(IN|OUT|M)\d\d|BASE|{NAMES}|{FILE})$")


@pytest.fixture(scope="module")
def server(browser, tiny_models) -> Iterator[HostServer]:
    settings = {"localization": "ko_KR", "sciart_panel_open": True}
    with HostServer(models=tiny_models, env=ONE_THREAD, ui=True, settings=settings) as server:
        server.post("/sciart/v1/roles", {"child": ROLES["child"]})
        yield server


@pytest.fixture
def page(browser, server) -> Iterator[Tab]:
    with opened(browser, server, height=1400, patience=PATIENCE, locale="ko-KR") as tab:
        yield tab


def assert_translated(seen: set[str], known: set[str]) -> None:
    lost = missing(seen, known)
    assert not lost, "not in localizations/ko_KR.json:\n" + "\n".join(map(json.dumps, lost))


def missing(seen: set[str], known: set[str]) -> list[str]:
    """Texts in Latin letters that no translation has brought there."""
    kept = {*KOREAN, *KOREAN.values(), *known}
    return sorted(text for text in seen if LATIN.search(text) and not HANGUL.search(text) and text not in kept
                  and not NOT_TEXT.match(text))


def look(page, *roots: str) -> set[str]:
    page.wait_for_timeout(250)  # the host translates after the change
    return set(page.evaluate(SEEN, list(roots)))


def open_all(page, root: str) -> None:
    page.eval_on_selector_all(f"{root} details", "(all) => all.forEach((one) => one.open = true)")


def names_of(server: HostServer) -> set[str]:
    presets = server.get("/sciart/v1/presets").json["presets"]
    prompts = {text for one in presets for text in [one["txt2img"].get("prompt", ""), *one["prompts"]]}
    return {*ROLES, *prompts, *(lora["name"] for lora in server.get("/sciart/v1/loras").json),
            *(one["name"] for one in presets)}


def test_the_panel_in_every_state_is_korean(page: Tab, server: HostServer) -> None:
    seen, tab = set(), page.page
    expect(page.panel.get_by_role("button").first).to_be_visible()
    seen |= look(tab, PANEL)
    for name in ("child", "watercolor", "science"):
        page.panel.locator(".sciart-bar button").first.click()
        page.field(page.rows.count() - 1, "name").fill(name)
    page.field(0, "schedule").fill("0.2@0, 0.65@0.5")
    open_all(tab, PANEL)
    seen |= look(tab, PANEL)
    for field in ("compose", "combine", "apply_to", "curve"):
        values = page.panel.locator(f"select[data-field={field}]").first.locator("option").evaluate_all(
            "(all) => all.map((one) => one.value)")
        for value in values:
            page.panel.locator(f"select[data-field={field}]").first.select_option(value)
            open_all(tab, PANEL)
            if value == "regions":
                page.panel.locator("[data-draw]").first.click()
            seen |= look(tab, PANEL)
            if folder := os.environ.get("SCIART_SCREENSHOTS"):
                if value in ("contrastive", "regions"):
                    tab.screenshot(path=Path(folder) / f"korean-panel-{value}.png", full_page=True)
    for preset in page.panel.locator(".sciart-presets input[type=radio]").all():
        preset.check()
        seen |= look(tab, PANEL)
    assert len(seen) > 100
    assert_translated(seen, names_of(server))


def test_the_tab_is_korean(page: Tab, server: HostServer) -> None:
    tab = page.page
    tab.locator("#tabs > .tab-nav button", has_text="SciArt").click()
    expect(tab.locator("#sciart_influence_run")).to_be_visible()
    seen = look(tab, TAB)
    for i in range(4):
        tab.locator("#sciart_tabs > .tab-nav button").nth(i).click()
        seen |= look(tab, TAB)
        if folder := os.environ.get("SCIART_SCREENSHOTS"):
            tab.screenshot(path=Path(folder) / f"korean-tab-{i}.png")
    assert len(seen) > 25
    assert_translated(seen, names_of(server))


def test_the_settings_are_korean(page: Tab, server: HostServer) -> None:
    tab = page.page
    tab.locator("#tabs > .tab-nav button", has_text=re.compile("Settings|설정")).click()
    tab.locator("#settings > .tab-nav button", has_text="SciArt").first.click()
    expect(tab.locator("#setting_sciart_user_dir")).to_be_visible()
    if folder := os.environ.get("SCIART_SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / "korean-settings.png")
    seen = look(tab, SETTINGS)
    assert len(seen) > 8
    assert_translated(seen, names_of(server))


def test_the_axes_of_the_plot_have_translations() -> None:
    assert [label for label in (f"[SciArt] {axis.label}" for axis in axes()) if label not in KOREAN] == []


def test_both_files_have_the_same_texts_and_english_is_as_it_is() -> None:
    english = json.loads(FILES["en_US"].read_text(encoding="utf-8"))
    assert list(english) == list(KOREAN)
    assert all(text == value for text, value in english.items())
    places = re.compile(r"\{\d\}")
    assert all(sorted(places.findall(text)) == sorted(places.findall(value)) for text, value in KOREAN.items())


def test_what_no_page_has_is_not_in_the_files() -> None:
    """A text that was changed in the code leaves no old translation behind."""
    sources = [path for pattern in ("javascript/*.js", "sciart_ext/**/*.py", "sciart_ext/presets/shipped/*.json")
               for path in SCIART.glob(pattern)]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    flat = re.sub(r'"\s*\+?\s*\n\s*f?"', "", code).replace('\\"', '"').replace("\\'", "'")
    axes_of_plot = {f"[SciArt] {axis.label}" for axis in axes()}
    made = {*axes_of_plot, "in 1", "mid 1", "out 1", "(requires Reload UI)",  # the last two by the host
            "Preset or recipe that the panel opens with: refresh"}
    assert [text for text in KOREAN if text not in made and text.strip("()") not in flat] == []
