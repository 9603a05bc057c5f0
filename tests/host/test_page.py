"""The panel on the real WebUI's own page: what it shows is what the host makes, pastes and sends on.

What the panel does by itself is in tests/browser.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from server import ONE_THREAD, HostServer

from sciart_ext.recipe import parse_recipe

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

ROLES = {"child": "child", "watercolor": "watercolor", "science": "science"}
QUICK = {"steps": 4, "width": 64, "height": 64, "cfg_scale": 7, "seed": 1}
PASTED = {"loras": [{"name": "child", "schedule": [[0, 0.2], [0.5, 0.65]], "curve": "cosine", "te_weight": 0.4},
                    {"name": "science", "weight": 0.4, "blocks": {"mid": 0.0}, "apply_to": "cond"}]}
# Fonts and frames that the host fetches from elsewhere, and its hires preview, which returns more than it declares.
ERRORS_OF_THE_HOST = ("Failed to load resource", "Cannot read properties of undefined (reading 'props')")


@pytest.fixture(scope="module")
def server(browser, tiny_models) -> Iterator[HostServer]:
    with HostServer(models=tiny_models, env=ONE_THREAD, ui=True) as server:
        yield server


class Tab:
    """One of the host's tabs, and the panel in it."""

    def __init__(self, page: sync_api.Page, name: str = "txt2img"):
        self.page = page
        self.name = name
        self.panel = page.locator(f"#sciart_{name}_panel")
        self.enabled = page.locator(f"#sciart_{name}_enabled")
        self.rows = self.panel.locator("[data-index]")
        self.lines = self.panel.locator("svg.sciart-plot polyline")
        self.error = self.panel.locator(".sciart-error")
        self.handles = self.panel.locator(".sciart-curves .sciart-handle")
        self.prompt = self.find("prompt textarea")

    def find(self, rest: str) -> sync_api.Locator:
        return self.page.locator(f"#{self.name}_{rest}")

    def number(self, name: str) -> sync_api.Locator:
        return self.find(f"{name} input[type=number]").first

    def open(self) -> Tab:
        self.page.locator(f"#sciart_{self.name} .label-wrap .icon").first.click()
        expect(self.panel.get_by_role("radiogroup", name="Preset").get_by_role("radio")).not_to_have_count(0)
        return self

    def preset(self, title: str) -> sync_api.Locator:
        return self.panel.get_by_role("radio", name=title, exact=True)

    def button(self, name: str) -> sync_api.Locator:
        return self.panel.get_by_role("button", name=name)

    def field(self, index: int, name: str) -> sync_api.Locator:
        """A field of a row; the row's fold is opened where it is in there."""
        field = self.rows.nth(index).locator(f"[data-field='{name}']")
        if field.locator("xpath=ancestor::details[not(@open)]").count():
            self.rows.nth(index).locator("summary").first.click()
        return field

    def add(self, name: str, **fields: str) -> None:
        index = self.rows.count()
        self.button("+ Add LoRA").click()
        for field, value in {"name": name, **fields}.items():
            self.field(index, field).fill(value)

    def bind(self, roles: dict[str, str]) -> None:
        for role, name in roles.items():
            select = self.panel.locator(f".sciart-presets [data-role={role}]")
            select.select_option(name)
            expect(self.panel.locator(f".sciart-presets [data-role={role}]:not(.sciart-wanted)")).to_have_value(name)

    def recipe(self) -> dict:
        return json.loads(self.page.locator(f"#sciart_{self.name}_recipe textarea").input_value())

    def fill(self, prompt: str = "a rocket", **numbers: float) -> None:
        self.prompt.fill(prompt)
        for name, value in {**QUICK, **numbers}.items():
            self.number(name).fill(str(value))

    def generate(self) -> str:
        """The infotext under the tab's first picture."""
        shown = self.page.locator(f"#html_info_{self.name} p").first
        expect(shown).to_have_count(0)
        self.find("generate").click()
        expect(shown).to_contain_text("Steps:", timeout=60_000)
        expect(self.find("gallery img").first).to_be_visible()
        return shown.inner_text()

    def drag(self, handle: sync_api.Locator, right: float, down: float) -> None:
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y + down, steps=8)
        self.page.mouse.up()

    def paste(self, infotext: str) -> None:
        self.prompt.fill(infotext)
        self.find("tools #paste").click()


@contextmanager
def opened(browser, server: HostServer, height: int = 1200, patience: int | None = None, query: str = "",
           width: int = 1280, **options) -> Iterator[Tab]:
    """A fresh page's txt2img; it fails the test when the page reports an error that is not the host's own.

    patience: milliseconds to wait for anything, where that takes longer. query: `?__theme=dark`. options: of the
    browser's context."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    if patience:
        context.set_default_timeout(patience)
        expect.set_options(timeout=patience)
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    try:
        tab.goto(f"http://127.0.0.1:{server.port}/{query}")
        tab.wait_for_selector("#sciart_txt2img_enabled", state="attached")
        yield Tab(tab)
    finally:
        context.close()
        expect.set_options(timeout=5_000)
    assert [error for error in errors if not any(known in error for known in ERRORS_OF_THE_HOST)] == []


@pytest.fixture
def page(browser, server) -> Iterator[Tab]:
    with opened(browser, server) as tab:
        yield tab


def recipe_in(infotext: str) -> str:
    """The recipe's text, unquoted as the host does it."""
    return json.JSONDecoder().raw_decode(infotext, infotext.index("SciArt: ") + len("SciArt: "))[0]


def test_the_panels_recipe_makes_the_picture_and_goes_to_img2img(page: Tab) -> None:
    page.open().add("child", schedule="0.2@0, 0.65@0.5")
    page.add("watercolor", weight="0.55")
    page.fill()
    expect(page.lines).to_have_count(2)
    expect(page.panel.locator("svg.sciart-plot circle")).to_have_count(2 * QUICK["steps"])
    recipe = page.recipe()
    assert recipe == {"loras": [{"name": "child", "schedule": "0.2@0, 0.65@0.5"},
                                {"name": "watercolor", "weight": 0.55}]}
    infotext = page.generate()
    assert infotext.startswith("a rocket") and "Steps: 4," in infotext and "Seed: 1," in infotext
    assert parse_recipe(recipe_in(infotext)) == parse_recipe(recipe)

    page.find("send_to_img2img").click()
    sent = Tab(page.page, "img2img")
    expect(sent.rows).to_have_count(2)
    expect(sent.prompt).to_have_value("a rocket")
    expect(sent.number("steps")).to_have_value("4")
    expect(sent.number("width")).to_have_value("64")
    expect(sent.page.locator("#img2img_image img").first).to_be_visible()
    assert sent.recipe() == recipe
    expect(sent.enabled).to_be_checked()
    assert parse_recipe(recipe_in(sent.generate())) == parse_recipe(recipe)


def test_what_is_dragged_is_what_is_made_with_it(page: Tab, server: HostServer) -> None:
    page.open().add("child", schedule="0.2@0, 0.65@0.5")
    for name, weight in (("watercolor", "0.55"), ("science", "0.5")):
        page.add(name, weight=weight)
    expect(page.rows.nth(0).locator(".sciart-fit")).to_have_text("fits")
    page.panel.locator(".sciart-chip").first.click()
    page.drag(page.handles.nth(1), 30, 40)
    dragged = page.recipe()
    page.drag(page.panel.locator(".sciart-dot"), 15, -20)
    mixed = page.recipe()
    page.drag(page.panel.locator(".sciart-dot"), -30, 10)
    page.button("Undo").click()
    assert page.recipe() == mixed
    assert dragged["loras"][0] != {"name": "child", "schedule": "0.2@0, 0.65@0.5"} and mixed != dragged
    assert all(a != b for a, b in zip(mixed["loras"], dragged["loras"]))
    page.fill()
    infotext = page.generate()
    assert parse_recipe(recipe_in(infotext)) == parse_recipe(mixed)
    address = page.find("gallery img").first.get_attribute("src")
    made = np.asarray(Image.open(io.BytesIO(page.page.request.get(address).body())).convert("RGB"))
    sampler = page.find("sampling input").first.input_value()
    asked = {"prompt": "a rocket", **QUICK, "sampler_name": sampler, "alwayson_scripts": {"SciArt": {"args": [mixed]}}}
    assert np.array_equal(made, server.txt2img(**asked).pictures[0])
    plain = {**asked, "alwayson_scripts": {"SciArt": {"args": [dragged]}}}
    assert not np.array_equal(made, server.txt2img(**plain).pictures[0])


def test_the_panel_that_is_opened_shows_what_a_first_picture_needs(page: Tab) -> None:
    page.page.set_viewport_size({"width": 1280, "height": 800})
    page.open()
    edges = page.panel.evaluate("""(panel) => [...panel.querySelectorAll(
        '.sciart-cards, .sciart-roles, .sciart-presets button')].map((node) => node.getBoundingClientRect())
        .flatMap(({top, bottom}) => [top, bottom])""")
    assert min(edges) >= 0 and max(edges) <= 800
    page.button("Use preset").click()
    expect(page.rows).to_have_count(3)
    until = page.page.evaluate("""() => document.querySelector('#sciart_txt2img_panel .sciart-messages')
        .getBoundingClientRect().bottom - document.querySelector('#sciart_txt2img').getBoundingClientRect().top""")
    assert until <= 800  # presets, roles and rows in one window


def test_a_switched_off_panel_changes_nothing(page: Tab) -> None:
    page.open().add("child", weight="0.65")
    page.enabled.uncheck()
    page.fill()
    assert "SciArt" not in page.generate()


def test_a_wrong_name_fails_with_an_error_that_names_the_field(page: Tab) -> None:
    page.open().add("nobody", weight="0.65")
    page.fill()
    message = "loras[0].name: no LoRA 'nobody'; accepted: child"
    expect(page.error).to_contain_text(message)
    page.find("generate").click()
    expect(page.page.locator("#html_log_txt2img .error").first).to_contain_text(message)
    expect(page.find("gallery img")).to_have_count(0)
    page.field(0, "name").fill("child")
    expect(page.error).to_be_empty()
    assert parse_recipe(recipe_in(page.generate())) == parse_recipe(page.recipe())


def test_a_preset_fills_rows_and_then_the_prompt_and_settings(page: Tab, server: HostServer) -> None:
    preset = server.get("/sciart/v1/presets/science-imagination").json
    page.open()
    page.preset("Science imagination").check()
    page.bind(ROLES)
    expect(page.panel.locator(".sciart-roles .sciart-fit")).to_have_count(3)
    page.button("Use preset").click()
    expect(page.lines).to_have_count(3)
    bound = [{"name": ROLES[lora["role"]], "weight": lora["weight"]} for lora in preset["recipe"]["loras"]]
    assert page.recipe() == {"loras": bound}
    expect(page.prompt).to_have_value("")
    page.field(0, "weight").fill("0.1")

    given = preset["txt2img"]
    page.button("Prompt & settings too").click()
    expect(page.prompt).to_have_value(given["prompt"])
    for name in ("steps", "seed", "cfg_scale", "width", "height"):
        expect(page.number(name)).to_have_value(str(given[name]))
    expect(page.find("sampling input").first).to_have_value(given["sampler_name"])
    expect(page.field(0, "weight")).to_have_value(str(bound[0]["weight"]))
    assert page.recipe() == {"loras": bound}


def test_pasted_infotext_restores_the_rows_or_empties_the_panel(page: Tab) -> None:
    settings = "Steps: 4, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 64x64"
    page.open().paste(f"a robot\n{settings}, SciArt: {json.dumps(json.dumps(PASTED))}, Version: v1.10.1")
    expect(page.rows).to_have_count(2)
    expect(page.prompt).to_have_value("a robot")
    expect(page.field(0, "schedule")).to_have_value("0.2@0, 0.65@0.5")
    expect(page.field(0, "curve")).to_have_value("cosine")
    expect(page.field(1, "apply_to")).to_have_value("cond")
    expect(page.enabled).to_be_checked()
    expect(page.lines).to_have_count(2)
    assert page.recipe() == PASTED

    page.paste(f"a kite\n{settings}, Version: v1.10.1")
    expect(page.prompt).to_have_value("a kite")
    expect(page.rows).to_have_count(0)
    expect(page.enabled).not_to_be_checked()
    expect(page.page.locator("#sciart_txt2img_recipe textarea")).to_have_value("")
    expect(page.lines).to_have_count(0)


def test_a_pasted_prompt_alone_leaves_the_panel(page: Tab) -> None:
    page.open().add("child", weight="0.65")
    page.find("neg_prompt textarea").fill("grey")
    page.paste("a kite\nNegative prompt: blurry")
    expect(page.find("neg_prompt textarea")).to_have_value("blurry")
    assert page.recipe() == {"loras": [{"name": "child", "weight": 0.65}]}


def test_cards_tell_which_files_fit_the_loaded_checkpoint_and_follow_it(page: Tab, server: HostServer) -> None:
    page.open().add("child", weight="0.5")
    page.add("child-xl", weight="0.5")
    card, other = (page.rows.nth(index).locator(".sciart-card") for index in (0, 1))
    expect(card.locator(".sciart-fit")).to_have_text("fits")
    expect(card).to_contain_text("rank")
    expect(other.locator(".sciart-unfit")).to_have_text("does not fit the loaded model")
    try:
        server.use_checkpoint("tiny-sdxl.safetensors")
        page.field(0, "weight").fill("0.6")  # any edit asks, and hears of the other model
        expect(other.locator(".sciart-fit")).to_have_text("fits", timeout=30_000)
        expect(card.locator(".sciart-unfit")).to_be_visible()
    finally:
        server.use_checkpoint("tiny-sd1.safetensors")
