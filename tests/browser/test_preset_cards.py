"""Presets as cards with pictures, what is known of files, and a panel in which nothing jumps."""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.parse
import urllib.request

import pytest
from dropdowns import choose
from panel_page import expect, opened
from PIL import Image

pytestmark = pytest.mark.browser

TITLES = ("Science imagination", "Science imagination, led by child", "Two subjects, each with its own LoRA",
          "Two subjects in a child's science-imagination drawing")

GOOD = {"title": "Good", "recipe": {"loras": [{"name": "child_style", "weight": 0.5}]}}

THREE = [{"name": name, "weight": 0.5} for name in ("child_style", "watercolor-v2", "science_fiction")]


@pytest.fixture(params=[(1280, 800, False), (390, 800, True)], ids=["wide-light", "phone-dark"])
def page(request, address, browser):
    width, height, dark = request.param
    with opened(address, browser, width, height, dark=dark) as page:
        yield page.open()


def top(page, selector):
    return page.panel.locator(selector).first.evaluate(
        "(node) => node.getBoundingClientRect().top - node.closest('.sciart-panel').getBoundingClientRect().top")


def test_every_shipped_preset_has_a_picture(page):
    pictures = page.presets.locator("img")
    expect(pictures).to_have_count(page.presets.get_by_role("radio").count())
    sizes = pictures.evaluate_all("(all) => Promise.all(all.map((one) => one.decode().then(() => one.naturalWidth)))")
    assert set(sizes) == {144}


def test_presets_are_chosen_by_the_arrow_keys(page):
    expect(page.preset(TITLES[0])).to_be_checked()
    page.preset(TITLES[0]).focus()
    page.page.keyboard.press("ArrowRight")
    expect(page.preset(TITLES[1])).to_be_checked()
    expect(page.panel.locator(".sciart-description")).to_contain_text("The child style leads")


def test_the_panel_that_is_opened_shows_what_a_first_picture_needs(page):
    edges = page.panel.evaluate("""(panel) => [...panel.querySelectorAll(
        '.sciart-cards, .sciart-roles, .sciart-presets button')].map((node) => node.getBoundingClientRect())
        .flatMap(({top, bottom}) => [top, bottom])""")
    assert min(edges) >= 0 and max(edges) <= 800


def test_all_until_the_third_row_fits_in_one_window(address, browser):
    with opened(address, browser, 1280, 800) as page:
        page.page.add_style_tag(content="#txt2img_settings { max-width: 610px }")  # as wide as in the host
        page.open().show(*THREE)
        height = page.page.evaluate("""() => document.querySelector('#sciart_txt2img_panel .sciart-messages')
            .getBoundingClientRect().bottom - document.querySelector('#sciart_txt2img').getBoundingClientRect().top""")
        assert height <= 800


def test_nothing_jumps(page):
    page.show(*THREE)
    expect(page.error).to_be_empty()
    places = {selector: top(page, selector) for selector in (".sciart-rows", ".sciart-mixture", ".sciart-compose")}
    height = page.panel.bounding_box()["height"]

    def assert_still():
        assert {selector: top(page, selector) for selector in places} == places
        assert page.panel.bounding_box()["height"] == height

    for title in TITLES:
        page.preset(title).check()
        assert_still()
    page.panel.locator(".sciart-roles select").first.select_option("child_style")
    expect(page.panel.locator(".sciart-roles .sciart-fit").first).to_be_visible()
    assert_still()
    page.field(1, "name").fill("a name that nobody has ever given to a LoRA, and that is told in the message once more")
    expect(page.error).not_to_be_empty()
    assert_still()
    page.field(1, "name").fill("zz last")
    expect(page.row(1).locator(".sciart-card")).to_contain_text("cannot be mixed")
    expect(page.error).to_be_empty()
    for index in (0, 2):
        page.field(index, "weight").focus()
        assert_still()
    page.page.locator("#txt2img_steps input[type=number]").fill("7")
    expect(page.plot.locator("circle")).to_have_count(21)
    assert_still()
    page.handles.first.focus()
    page.page.keyboard.press("Insert")
    page.page.keyboard.press("Control+z")
    assert_still()


def test_rows_tell_what_their_files_are(page):
    page.show(*({"name": name, "weight": 0.5} for name in ("child_style", "science_xl", "zz last", "nobody")))
    cards = [page.row(i).locator(".sciart-card") for i in range(4)]
    expect(cards[0].locator("span")).to_have_text(["fits", "LoRA", "rank 16", "9.1 MB", "for SD1"])
    expect(cards[1].locator("span").first).to_have_text("does not fit the loaded model")
    expect(cards[1]).to_have_attribute("title", "fits no layer of toy; it is made for SDXL")
    expect(cards[2].locator("span").first).to_have_text("cannot be mixed")
    expect(cards[2]).to_contain_text("Flux LoRA is not supported")
    expect(cards[3]).to_be_empty()
    page.field(3, "name").fill("watercolor-v2")
    expect(cards[3]).to_contain_text("fits")


def test_what_stands_in_empty_fields_is_not_cut_off(page):
    page.show(*THREE)
    page.row(0).get_by_text("More", exact=True).click()
    for width in (None, 300, 420, 560, 700):
        if width:
            page.page.add_style_tag(content=f"#txt2img_settings {{ max-width: {width}px; min-width: 0 !important }}")
        cut = page.row(0).evaluate("""(row) => [...row.querySelectorAll("input[type=number]")].map((field) => {
            const style = getComputedStyle(field), pen = document.createElement("canvas").getContext("2d");
            pen.font = style.font;
            const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
            return [field.placeholder, room - pen.measureText(field.placeholder).width];
        }).filter(([, room]) => room < 0)""")
        assert cut == [], width


def test_files_that_are_read_later_are_told_without_closing_a_list(address, browser):
    with opened(address, browser) as page:
        page.open()
        names, held = page.panel.locator("datalist option"), []
        expect(page.panel.locator("datalist option", has_text="LoRA, rank 16")).to_have_count(names.count() - 1)

        def hold(route):
            cards = '\\"action\\":\\"cards\\"' in (route.request.post_data or "")
            held.append(route) if cards else route.continue_()

        page.page.route("**/run/predict**", hold)
        before = names.count()
        page.button("Refresh the list of LoRAs").click()
        expect(names).to_have_count(before + 1)
        found = names.last.get_attribute("value")
        page.add(found)
        card = page.row(0).locator(".sciart-card span")
        expect(card).to_have_text(["9.1 MB"])
        role = page.panel.locator(".sciart-roles [data-role=science]")
        role.focus()
        role.evaluate("(select) => select.mark = true")
        assert len(held) == 1
        held[0].continue_()
        expect(card.first).to_have_text("fits")
        expect(names.last).to_have_text("LoRA, rank 16")
        assert role.evaluate("(select) => select.mark"), "the list was drawn anew while somebody was choosing"


def test_roles_tell_what_is_bound_and_what_does_not_fit(page):
    science = page.panel.locator(".sciart-roles [data-role=science]")
    likely = science.locator("optgroup[label=likely] option")
    assert likely.all_text_contents() == ["science_fiction", "science_xl (does not fit)"]
    science.select_option("science_xl")
    expect(page.panel.locator(".sciart-roles .sciart-unfit")).to_have_count(1)


def test_a_saved_preset_keeps_the_last_picture_or_is_drawn_by_its_curves(page):
    page.show({"name": "child_style", "schedule": "0.2@0, 0.6@0.5"})
    page.on("dialog", lambda dialog: dialog.accept())
    page.panel.get_by_text("Save as preset").click()
    page.panel.get_by_label("Name", exact=True).fill("drawn")
    page.button("Save preset").click()
    card = page.presets.locator("label", has_text="drawn")
    expect(card.locator("svg polyline")).to_have_count(1)
    picture = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(picture, "png")
    page.page.evaluate("""(data) => document.body.insertAdjacentHTML('beforeend',
        `<div id="txt2img_gallery"><img src="data:image/png;base64,${data}"></div>`)""",
                       base64.b64encode(picture.getvalue()).decode())
    page.panel.get_by_label("Name", exact=True).fill("pictured")
    page.button("Save preset").click()
    shown = page.presets.locator("label", has_text="pictured").locator("img")
    expect(shown).to_have_count(1)
    kept = Image.open(io.BytesIO(base64.b64decode(shown.get_attribute("src").partition(",")[2])))
    assert kept.size == (144, 144) and kept.format == "WEBP"
    assert all(abs(a - b) < 12 for a, b in zip(kept.convert("RGB").getpixel((70, 70)), (200, 30, 30)))
    for name in ("pictured", "drawn"):
        page.preset(name).check()
        page.button("Delete the chosen preset").click()
        expect(page.preset(name)).to_have_count(0)


def test_the_recipe_is_copied_and_pasted(address, browser):
    with opened(address, browser, permissions=("clipboard-read", "clipboard-write")) as page:
        page.open().show({"name": "child_style", "weight": 0.65})
        page.panel.get_by_text("Recipe (JSON)").click()
        page.button("Copy").click()
        expect(page.button("Copied")).to_be_visible()
        copied = page.page.evaluate("navigator.clipboard.readText()")
        assert json.loads(copied) == page.recipe()
        page.page.evaluate("(text) => navigator.clipboard.writeText(text)", copied.replace("0.65", "0.25"))
        page.button("Paste").click()
        expect(page.field(0, "weight")).to_have_value("0.25")
        page.page.evaluate("navigator.clipboard.writeText('{\"loras\": [}')")
        page.button("Paste").click()
        expect(page.error).to_contain_text("recipe: not valid JSON: ")
        expect(page.error).to_contain_text("line 1 column 12")
        expect(page.panel.locator("[data-index]")).to_have_count(1)  # the rows wait, and take nothing meanwhile
        assert page.panel.locator(".sciart-rows").evaluate("(rows) => rows.inert")
        page.button("Undo").click()
        expect(page.error).to_be_empty()
        assert not page.panel.locator(".sciart-rows").evaluate("(rows) => rows.inert")
        assert page.recipe() == {"loras": [{"name": "child_style", "weight": 0.25}]}


def put(address, name, text):
    """A file into the user's folder, as by hand."""
    asked = urllib.parse.urlencode({"name": name, "text": text})
    urllib.request.urlopen(f"{address}put?{asked}", timeout=10).close()


@pytest.fixture
def wrong_files(address):
    put(address, "presets/bad.json", '{"title": <b>&"}')
    put(address, "presets/ABC.json", json.dumps(GOOD))
    put(address, "presets/good.json", json.dumps(GOOD))
    put(address, "presets/good.webp", "<svg>")
    put(address, "roles.json", "[]")
    yield
    urllib.request.urlopen(address + "as_new", timeout=10).close()


def test_files_that_are_wrong_are_cards_with_the_reason_and_the_others_can_be_used(address, browser, wrong_files):
    with opened(address, browser) as page:
        page.open()
        wrong = page.presets.locator(".sciart-wrong")
        expect(wrong).to_have_count(2)
        expect(wrong.locator("input:disabled")).to_have_count(2)
        expect(wrong.locator("p").nth(0)).to_contain_text("not named as presets are")
        expect(wrong.locator("p").nth(1)).to_contain_text("bad.json cannot be read")
        assert wrong.nth(1).get_attribute("title").startswith("preset: bad.json cannot be read: ")
        told = page.panel.locator(".sciart-wrong-roles")
        expect(told).to_contain_text("roles: expected an object")
        expect(told).to_contain_text("mend or delete the file")
        expect(page.preset(TITLES[0])).to_be_checked()
        page.preset("Good").check()
        expect(page.panel.locator(".sciart-presets .sciart-description")).to_contain_text("good.webp is no WebP")
        expect(page.presets.locator("label", has_text="Good").locator("svg polyline")).to_have_count(1)
        page.button("Use preset").click()
        expect(page.field(0, "name")).to_have_value("child_style")
        # what is wrong with the roles is told as long as it is, and then no more
        put(address, "roles.json", "{}")
        page.button("Refresh the list of LoRAs").click()
        expect(told).to_be_hidden()


@pytest.fixture
def presets_tab(address, browser, wrong_files):
    """The tab SciArt → Presets."""
    with opened(address, browser) as page:
        for name in ("SciArt", "Presets"):
            page.page.locator(".tab-nav button:visible", has_text=name).first.click()
        yield page.page


def test_the_tab_lists_what_is_wrong_line_by_line_and_opens_it_to_be_mended(presets_tab):
    tab, status = presets_tab, presets_tab.locator("#sciart_presets_status.prose")
    lines, text = status.locator(".sciart-error"), tab.locator("#sciart_presets_text textarea")
    tab.get_by_role("button", name="List the presets").click()
    expect(lines).to_have_text([re.compile(r"^ABC: name: "), re.compile(r"^bad: preset: bad\.json cannot be read"),
                                re.compile(r"^roles: .* mend or delete the file ")])
    choose(tab, "#sciart_presets_chosen", "bad")
    expect(text).to_have_value('{"title": <b>&"}')
    expect(lines).to_have_count(1)
    text.fill(json.dumps(GOOD))
    tab.get_by_role("button", name="Save", exact=True).click()
    expect(status).to_contain_text("bad is saved")
    tab.locator("#sciart_presets_name").locator("textarea, input").first.fill("ABC")
    tab.get_by_role("button", name="Delete").click()
    expect(status).to_contain_text("ABC is deleted")
    tab.get_by_role("button", name="Export mine").click()
    expect(status.locator("p")).to_have_text(["2 presets", re.compile(r"^roles: ")])


def test_an_import_with_one_wrong_preset_saves_none(presets_tab, tmp_path):
    tab, status = presets_tab, presets_tab.locator("#sciart_presets_status.prose")
    file = tmp_path / "presets.json"

    def give(text):
        file.write_text(text, encoding="utf-8")
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Import").click()
        chooser.value.set_files(file)

    for text, said in ((json.dumps({"one": GOOD, "two": {}}), "two: recipe: missing"),
                       ("[" * 100_000, "not valid JSON"),
                       (json.dumps({"one": GOOD, "con": GOOD}), "con: name: 'con' is a name that Windows keeps"),
                       (json.dumps({"one": GOOD, "abc": GOOD}), "abc: name: 'ABC.json' is there")):
        give(text)
        expect(status).to_contain_text(said)
    tab.get_by_role("button", name="Export mine").click()
    expect(status).to_contain_text("1 presets")
    give(json.dumps({"one": GOOD, "two": GOOD}))
    expect(status).to_contain_text("2 presets are imported: one, two")
