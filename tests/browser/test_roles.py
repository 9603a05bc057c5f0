"""A preset's roles: what is suggested is shown as such, bound by using the preset, and never by looking at it."""

from __future__ import annotations

import pytest
from panel_page import Page, expect, opened

pytestmark = pytest.mark.browser

TITLE = "Science imagination"
SUGGESTED = {"child": "child_style", "watercolor": "수채화", "science": "science_fiction"}
USED = {"loras": [{"name": "child_style", "weight": 0.65}, {"name": "수채화", "weight": 0.55},
                  {"name": "science_fiction", "weight": 0.5}]}


@pytest.fixture(params=[(1280, False), (390, True)], ids=["wide-light", "phone-dark"])
def page(request, address, browser):
    width, dark = request.param
    with opened(address, browser, width, 800, dark=dark) as page:
        yield page.open()
        unbind(page)


def unbind(page):
    page.preset(TITLE).check()
    for name in SUGGESTED:
        if role(page, name).input_value():
            role(page, name).select_option("")
            expect(marked(page, "wanted", name)).to_have_count(1)


def role(page, name):
    return page.panel.locator(f".sciart-roles [data-role='{name}']")


def marked(page, mark, name=None):
    """Roles marked as suggested, or as wanted."""
    named = f"[data-role='{name}']" if name else ""
    return page.panel.locator(f".sciart-roles [data-role].sciart-wanted{named}" if mark == "wanted" else
                              f".sciart-roles [data-suggested]{named}")


def asked(page, action):
    """Collects the questions of one kind that the page asks from now on."""
    questions = []
    page.on("request", lambda request: questions.append(request.post_data)
                 if f'\\"action\\":\\"{action}\\"' in (request.post_data or "") else None)
    return questions


def save_preset(page, name, *roles):
    page.show(*({"role": one, "weight": 0.5} for one in roles))
    page.panel.get_by_text("Save as preset").click()
    page.panel.get_by_label("Name", exact=True).fill(name)
    page.button("Save preset").click()
    expect(page.preset(name)).to_be_checked()


def delete_preset(page):
    page.on("dialog", lambda dialog: dialog.accept())
    page.button("Delete the chosen preset").click()
    expect(page.panel.locator(".sciart-note")).to_contain_text("Deleted")


@pytest.mark.parametrize("button", ["Use preset", "Prompt & settings too"])
def test_what_is_suggested_is_marked_and_taken_by_using_the_preset(page, button):
    page.preset(TITLE).check()
    for name, lora in SUGGESTED.items():
        expect(role(page, name)).to_have_value(lora)
        expect(page.panel.get_by_label(f"“{name}”: suggested")).to_have_value(lora)
        expect(role(page, name).locator("xpath=..").locator(".sciart-card")).to_contain_text("fits")
    expect(marked(page, "suggested")).to_have_count(3)
    expect(marked(page, "wanted")).to_have_count(0)
    binds = asked(page, "bind")
    page.button(button).click()
    expect(page.field(2, "name")).to_have_value("science_fiction")
    assert page.recipe() == USED
    assert len(binds) == 1
    expect(marked(page, "suggested")).to_have_count(0)
    expect(page.panel.get_by_label("LoRA for “child”")).to_have_value("child_style")
    expect(page.error).to_be_empty()


def test_looking_at_a_preset_binds_nothing(page, address, browser):
    for radio in page.presets.get_by_role("radio").all():
        radio.check()
    page.preset(TITLE).check()
    expect(marked(page, "suggested")).to_have_count(3)
    assert page.text() == ""
    with opened(address, browser) as other:
        other.open().preset(TITLE).check()
        expect(marked(other, "suggested")).to_have_count(3)


def test_a_suggestion_changes_nothing_of_the_layout(page):
    page.preset(TITLE).check()
    page.add("child_style")
    below = "(panel) => panel.querySelector('.sciart-rows').offsetTop"
    place = page.panel.evaluate(below)
    role(page, "child").select_option("")
    expect(marked(page, "wanted")).to_have_count(1)
    assert page.panel.evaluate(below) == place
    page.button("Use preset").click()
    expect(marked(page, "suggested")).to_have_count(0)
    assert page.panel.evaluate(below) == place


def test_a_role_that_was_emptied_stays_empty(page):
    page.preset(TITLE).check()
    role(page, "watercolor").select_option("")
    expect(marked(page, "wanted", "watercolor")).to_have_value("")
    page.button("Use preset").click()
    expect(page.error).to_contain_text("loras[1].role: 'watercolor' is not bound")
    assert [lora.get("name") for lora in page.recipe()["loras"]] == ["child_style", None, "science_fiction"]
    role(page, "watercolor").select_option("watercolor-v2")
    expect(page.field(1, "name")).to_have_value("watercolor-v2")
    expect(page.error).to_be_empty()


def test_no_lora_is_suggested_twice_nor_one_that_does_not_fit(page):
    save_preset(page, "crowded", "watercolor", "수채", "xl")
    expect(role(page, "watercolor")).to_have_value("watercolor-v2")  # the better one is the only one of the other role
    expect(role(page, "수채")).to_have_value("수채화")
    expect(marked(page, "wanted", "xl")).to_have_value("")
    role(page, "xl").select_option("watercolor-v2")
    expect(role(page, "watercolor")).to_have_value("수채화")
    expect(marked(page, "wanted", "수채")).to_have_value("")
    role(page, "xl").select_option("")
    expect(marked(page, "wanted", "xl")).to_have_count(1)
    delete_preset(page)


def test_what_was_chosen_a_moment_ago_is_taken_and_not_what_was_suggested(page):
    page.preset(TITLE).check()
    page.panel.evaluate("""(panel) => {
        const select = panel.querySelector(".sciart-roles [data-role=child]");
        select.value = "watercolor-v2";
        select.dispatchEvent(new Event("change"));
        [...panel.querySelectorAll("button")].find((button) => button.textContent === "Use preset").click();
    }""")
    expect(page.field(2, "name")).to_have_value("science_fiction")
    assert [lora["name"] for lora in page.recipe()["loras"]] == ["watercolor-v2", "수채화", "science_fiction"]


def test_what_was_bound_in_another_tab_is_kept(page):
    page.preset(TITLE).check()
    page.page.get_by_role("button", name="img2img", exact=True).click()
    other = Page(page.page, "img2img").open()
    expect(role(other, "child")).to_have_value("child_style")
    page.page.get_by_role("button", name="txt2img", exact=True).click()
    role(page, "child").select_option("watercolor-v2")
    expect(page.panel.get_by_label("LoRA for “child”")).to_have_value("watercolor-v2")
    page.page.get_by_role("button", name="img2img", exact=True).click()
    other.button("Use preset").click()
    expect(other.field(0, "name")).to_have_value("watercolor-v2")
    page.page.get_by_role("button", name="txt2img", exact=True).click()
