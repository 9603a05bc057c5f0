"""No script of the page uses a name of another while it is loaded, so that the order of loading does not matter."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "javascript").glob("*.js"))
GUARD = """() => {
    window.missing = new Set();
    const guarded = (object) => new Proxy(object, {
        get(target, name) {
            if (typeof name === "string" && !(name in target)) window.missing.add(name);
            return target[name];
        },
        set(target, name, value) {
            window.missing.delete(name);
            target[name] = value?.constructor === Object ? guarded(value) : value;
            return true;
        },
    });
    window.sciart = guarded({});
    window.onUiLoaded = () => {};
}"""
"""names that were read before they were there, and not made at once (`||=`)"""


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.evaluate(GUARD)
    yield page
    page.close()


def missing_after(page, script):
    page.add_script_tag(content=script)
    return page.evaluate("[...window.missing]")


@pytest.mark.browser
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_scripts_are_loaded_in_any_order(page, seed):
    files = random.Random(seed).sample(FILES, len(FILES)) if seed else FILES
    for path in files:
        assert missing_after(page, path.read_text(encoding="utf-8")) == [], path.name
    assert page.evaluate("typeof window.sciart.Panel") == "function"


@pytest.mark.browser
def test_a_name_that_is_used_too_early_is_found(page):
    assert missing_after(page, "(function() { const base = window.sciart.Panel; })();") == ["Panel"]
    page.evaluate("window.missing.clear()")
    assert missing_after(page, "window.sciart.dom ||= {}; window.sciart.dom.h;") == ["h"]
