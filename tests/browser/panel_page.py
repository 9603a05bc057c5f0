"""The page of app.py in a browser, and the panel of one of its tabs by what a user sees."""

from __future__ import annotations

import functools
import json
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

FRAMES_AT_REST = 20  # a third of a second: longer than the panel waits before it asks for the plan
OFFLINE = ("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED")  # what gradio would fetch from elsewhere


class Page:
    """The page, and the panel of its first tab by what a user sees."""

    def __init__(self, page, tab="txt2img"):
        self.page = page
        self.tab = tab
        self.panel = page.locator(f"#sciart_{tab}_panel")
        self.enabled = page.locator(f"#sciart_{tab}_enabled")
        self.error = self.panel.locator(".sciart-error")
        self.plot = self.panel.locator("svg.sciart-plot")
        self.presets = self.panel.get_by_role("radiogroup", name="Preset")
        self.handles = self.plot.locator(".sciart-handle")
        self.listeners = []

    def open(self):
        self.page.locator(f"#sciart_{self.tab} .icon").click()
        expect(self.presets.get_by_role("radio")).not_to_have_count(0)
        return self

    def on(self, event, listener):
        """Hears of the page's events until the test ends."""
        self.page.on(event, listener)
        self.listeners.append((event, listener))

    def preset(self, title):
        return self.presets.get_by_role("radio", name=title, exact=True)

    def button(self, name):
        return self.panel.get_by_role("button", name=name)

    def row(self, index):
        return self.panel.get_by_role("group", name=f"LoRA {index + 1}", exact=True)

    def field(self, index, name):
        """A field of a row; the row's fold is opened where it is in there."""
        field = self.row(index).locator(f"[data-field='{name}']")
        if field.locator("xpath=ancestor::details[not(@open)]").count():
            self.row(index).get_by_text("More", exact=True).click()
        return field

    def add(self, name, **fields):
        index = self.panel.locator("[data-index]").count()
        self.button("+ Add LoRA").click()
        self.field(index, "name").fill(name)
        for field, value in fields.items():
            self.field(index, field).fill(value)

    def show(self, *loras, **others):
        """Takes a recipe of these LoRAs, as a paste does."""
        self.page.locator(f"#sciart_{self.tab}_recipe textarea").evaluate(
            "(field, text) => { field.value = text; updateInput(field); }", json.dumps({"loras": loras, **others}))
        expect(self.panel.locator("[data-index]")).to_have_count(len(loras))
        self.rest()

    def rest(self):
        """Waits until what the panel has asked for has come and moves nothing any more: a gesture needs places that
        stay."""
        self.page.evaluate("""([tab, frames]) => new Promise((resolve) => {
            let before = "", same = 0;
            const look = () => {
                const parts = document.querySelectorAll(`#sciart_${tab}_panel :is(svg, .sciart-row, .sciart-handle)`);
                const now = JSON.stringify([...parts].map((part) => part.getBoundingClientRect()));
                same = now === before ? same + 1 : 0;
                before = now;
                same < frames ? requestAnimationFrame(look) : resolve();
            };
            look();
        })""", [self.tab, FRAMES_AT_REST])

    def text(self):
        return self.page.locator(f"#sciart_{self.tab}_recipe textarea").input_value()

    def recipe(self):
        return json.loads(self.text())

    def received(self):
        """What the script's Python gets when Generate is pressed."""
        self.page.locator(f"#{self.tab}_generate").click()
        expect(self.page.locator(f"#{self.tab}_received textarea")).to_have_value(self.text())
        return self.text()

    def paste(self, infotext):
        self.page.locator(f"#{self.tab}_prompt textarea").fill(infotext)
        self.page.locator(f"#{self.tab}_tools #paste").click()


@functools.cache
def window(browser, permissions=(), **options):
    """A browser's window of these options, kept so that pages find what earlier ones have fetched."""
    return browser.new_context(permissions=list(permissions), **options)


@functools.cache
def idle_tabs(context):
    """Empty tabs of a window: to make one takes as long as to show a page in it."""
    return []


@contextmanager
def new_tab(browser, width, height, **options):
    """An empty tab, which other tests have had and will have."""
    context = window(browser, **options)
    idle = idle_tabs(context)
    tab = idle.pop() if idle else context.new_page()
    tab.bring_to_front()
    tab.set_viewport_size({"width": width, "height": height})
    yield tab
    tab.unroute_all()
    tab.goto("about:blank")
    idle.append(tab)


@contextmanager
def opened(address, browser, width=1280, height=1200, dark=False, **options):
    """A fresh page; it fails the test when the page reports an error."""
    errors = []

    def on_console(message):
        if message.type == "error" and not any(known in message.text for known in OFFLINE):
            errors.append(message.text)

    with new_tab(browser, width, height, **options) as tab:
        page = Page(tab)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", on_console)
        tab.goto(address + ("?__theme=dark" if dark else "?__theme=light"))
        tab.wait_for_selector("#sciart_txt2img_enabled", state="attached")
        yield page
        for event, listener in page.listeners:
            tab.remove_listener(event, listener)
    assert errors == []
