"""What a user of the WebUI expects of an extension, on its own page: paste, PNG info, send to, settings, help, styles."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import recipe, with_recipe
from random_recipes import random_request
from server import ONE_THREAD, HostServer
from test_page import ROLES, Tab, expect, opened, recipe_in

from sciart_ext.presets.prompt_styles import shipped_styles
from sciart_ext.recipe import parse_recipe, recipe_to_text

pytestmark = pytest.mark.browser

PASTED = 12
PATIENCE = 120_000
"""milliseconds; the host's page is large, and the machine may be busy"""
SETTINGS = "Steps: 4, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 64x64"


@pytest.fixture(scope="module")
def server(browser, tiny_models) -> Iterator[HostServer]:
    """A panel that is open and begins with a preset, whose roles are bound but for one."""
    settings = {"sciart_start": "science-imagination", "sciart_panel_open": True}
    with HostServer(models=tiny_models, env=ONE_THREAD, ui=True, settings=settings,
                    prepare=bind_two_roles) as server:
        yield server


def bind_two_roles(data: Path) -> None:
    folder = data / "sciart-user"
    folder.mkdir()
    bound = {role: ROLES[role] for role in ("child", "watercolor")}
    (folder / "roles.json").write_text(json.dumps(bound), encoding="utf-8")


@pytest.fixture
def page(browser, server) -> Iterator[Tab]:
    with opened(browser, server, patience=PATIENCE) as tab:
        yield tab


def shoot(page, name: str) -> None:
    if folder := os.environ.get("SCIART_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def go_to(page, name: str) -> None:
    page.locator("#tabs > .tab-nav button", has_text=re.compile(rf"^\s*{name}\s*$")).click()


def test_the_panel_is_open_and_begins_as_the_settings_say(page: Tab) -> None:
    expect(page.rows).to_have_count(3)
    expect(page.field(0, "name")).to_be_visible()
    expect(page.field(0, "name")).to_have_value("child")
    loras = page.recipe()["loras"]
    assert loras[:2] == [{"name": "child", "weight": 0.65}, {"name": "watercolor", "weight": 0.55}]
    assert loras[2] == {"role": "science", "weight": 0.5}, "a role that is not bound stays a role"
    expect(page.error).to_contain_text("'science' is not bound to a LoRA")


def test_pasted_recipes_restore_the_panel(page: Tab) -> None:
    page.page.wait_for_timeout(500)
    for number in range(PASTED):
        given = parse_recipe(random_request(number)[0])
        page.paste(f"a robot {number}\n{SETTINGS}, SciArt: {json.dumps(recipe_to_text(given))}, Version: v1.10.1")
        expect(page.prompt).to_have_value(f"a robot {number}")
        expect(page.rows).to_have_count(len(given.loras))
        assert parse_recipe(page.recipe()) == given, number
        for i, lora in enumerate(given.loras):
            expect(page.field(i, "name")).to_have_value(lora.name)
            expect(page.field(i, "apply_to")).to_have_value(lora.apply_to)
            expect(page.field(i, "te_weight")).to_have_value("" if lora.te_weight is None else f"{lora.te_weight:g}")
            if lora.schedule is None:
                assert float(page.field(i, "weight").input_value()) == pytest.approx(lora.weight)
                expect(page.field(i, "schedule")).to_have_value("")
            else:
                shown = page.field(i, "schedule").input_value()
                assert parse_recipe({"loras": [{"name": "a", "schedule": shown}]}).loras[0].schedule == lora.schedule
                expect(page.field(i, "curve")).to_have_value(lora.curve)
            if given.compose == "contrastive":
                expect(page.field(i, "subject")).to_have_value(lora.subject or "")
                expect(page.field(i, "trigger")).to_have_value(lora.trigger or "")
        if len(given.loras) > 1:
            expect(page.panel.locator("[data-field=compose]")).to_have_value(given.compose)
            expect(page.panel.locator("[data-field=combine]")).to_have_value(given.combine)


@pytest.mark.parametrize("name", ["txt2img", "img2img"])
def test_png_info_sends_the_recipe_on(page: Tab, server: HostServer, tmp_path: Path, name: str) -> None:
    made = server.txt2img(**with_recipe(recipe({"child": 0.7, "science": 0.35}, compose="switch")))
    file = tmp_path / "made.png"
    file.write_bytes(made.pngs[0])
    go_to(page.page, "PNG Info")
    page.page.locator("#pnginfo_image input[type=file]").set_input_files(file)
    expect(page.page.locator("#tab_pnginfo")).to_contain_text("SciArt version")
    page.page.locator(f"#tab_pnginfo #{name}_tab").click()
    sent = Tab(page.page, name)
    expect(sent.prompt).to_have_value("a rocket")
    expect(sent.rows).to_have_count(2)
    expect(sent.enabled).to_be_checked()
    assert parse_recipe(sent.recipe()) == parse_recipe(recipe({"child": 0.7, "science": 0.35}, compose="switch"))
    if name == "txt2img":
        assert recipe_in(sent.generate()) == recipe_in(made.infotext)


def test_a_newer_version_is_told_of_on_the_page(page: Tab) -> None:
    page.page.wait_for_timeout(500)
    page.paste(f"a kite\n{SETTINGS}, SciArt: {json.dumps(json.dumps(recipe({'child': 0.5})))}, SciArt version: 99.1")
    expect(page.page.locator(".toast-wrap")).to_contain_text("made with SciArt 99.1")
    shoot(page.page, "newer")
    expect(page.rows).to_have_count(1)


def test_help_is_one_click_away_and_answers(page: Tab, server: HostServer) -> None:
    go_to(page.page, "Settings")
    page.page.locator("#settings > .tab-nav button", has_text="SciArt").first.click()
    expect(page.page.locator("#setting_sciart_user_dir")).to_be_visible()
    page.page.locator("#setting_sciart_user_dir").scroll_into_view_if_needed()
    shoot(page.page, "settings")
    for root in ("#sciart_txt2img", "#sciart_img2img", "#tab_sciart_tab", "#settings_sciart"):
        link = page.page.locator(f"{root} .sciart-help a")
        expect(link).to_have_count(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{link.get_attribute('href')}") as answer:
            assert answer.status == 200 and answer.read().decode("utf-8").startswith("# SciArt")


def test_the_settings_page_sets_the_folder(page: Tab, server: HostServer, tmp_path: Path) -> None:
    go_to(page.page, "Settings")
    page.page.locator("#settings > .tab-nav button", has_text="SciArt").first.click()
    folder = page.page.locator("#setting_sciart_user_dir textarea")
    try:
        folder.fill(str(tmp_path / "nowhere"))
        page.page.locator("#settings_submit").click()
        expect(page.page.locator("#settings_result.prose")).to_contain_text("sciart_user_dir")
        go_to(page.page, "SciArt")
        page.page.locator("#sciart_tabs .tab-nav button", has_text="Presets").click()
        page.page.locator("#sciart_presets_list").click()
        status = page.page.locator("#sciart_presets_status.prose")
        expect(status).to_contain_text(f"sciart_user_dir: there is no folder {tmp_path / 'nowhere'}; create it")
        (tmp_path / "nowhere").mkdir()
        page.page.locator("#sciart_presets_list").click()
        expect(status).not_to_contain_text("there is no folder")
    finally:
        server.post("/sdapi/v1/options", {"sciart_user_dir": ""})


def test_the_prompts_become_styles_of_the_page(page: Tab, server: HostServer) -> None:
    names = [style.name for style in shipped_styles()]
    go_to(page.page, "SciArt")
    page.page.locator("#sciart_tabs .tab-nav button", has_text="Presets").click()
    page.page.locator("#sciart_presets_styles").click()
    status = page.page.locator("#sciart_presets_status.prose")
    expect(status).to_contain_text(f"Added to the WebUI's styles: {names[0]}")
    shoot(page.page, "styles")
    assert {style["name"] for style in server.get("/sdapi/v1/prompt-styles").json} == set(names)
    go_to(page.page, "txt2img")
    page.page.locator("#txt2img_styles input").click()
    expect(page.page.locator("ul.options li", has_text=names[0])).to_be_visible()


def test_the_plot_is_asked_for_on_the_page(page: Tab) -> None:
    page.page.wait_for_timeout(500)
    page.paste(f"a rocket\n{SETTINGS}, SciArt: {json.dumps(json.dumps(recipe({'child': 0.5, 'science': 0.6})))}")
    expect(page.rows).to_have_count(2)
    choose(page.page, "#script_list", "X/Y/Z plot")
    choose(page.page, "#script_txt2img_xyz_plot_x_type", "[SciArt] LoRA 2 weight")
    page.page.locator("#script_txt2img_xyz_plot_x_values textarea").fill("0-1 (+0.5)")
    choose(page.page, "#script_txt2img_xyz_plot_y_type", "[SciArt] Compose")
    shoot(page.page, "plot-axes")
    page.page.locator("#xyz_grid_fill_y_tool_button").first.click()
    expect(page.page.locator(".token", has_text="contrastive")).to_be_visible()
    shown = page.page.locator("#html_log_txt2img .error").first
    page.find("generate").click()
    expect(shown).to_contain_text("loras[0].region: missing; compose regions needs a LoRA with a region (at [SciArt]")
    for way in ("contrastive", "regions"):
        page.page.locator(".token", has_text=way).locator(".token-remove").click()
    first = parse_recipe(recipe_in(page.generate()))  # of the plot's first cell
    assert [lora.weight for lora in first.loras] == [0.5, 0.0] and first.compose == "merge"
    page.page.wait_for_timeout(500)
    shoot(page.page, "plot")


def choose(page, selector: str, text: str) -> None:
    field = page.locator(f"{selector} input").first
    field.click()
    field.fill(text)
    page.locator("ul.options li", has_text=text).first.click()
