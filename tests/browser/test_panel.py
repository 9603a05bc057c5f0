"""The panel in a browser: what is clicked and typed is what the script receives, and the other way round."""

from __future__ import annotations

import json

import pytest
from panel_page import Page, expect, opened
from PIL import Image

from sciart_ext.recipe import parse_recipe
from sciart_ext.recipe.mask_picture import mask_values

pytestmark = pytest.mark.browser


@pytest.fixture
def page(address, browser):
    with opened(address, browser) as page:
        yield page


def bind_all(page):
    names = {"child": "child_style", "watercolor": "watercolor-v2", "science": "science_fiction"}
    for role, name in names.items():
        page.panel.locator(f".sciart-presets [data-role={role}]").select_option(name)


def test_an_untouched_panel_hands_over_an_empty_text(page):
    page.open()
    assert page.received() == ""
    expect(page.enabled).not_to_be_checked()
    expect(page.error).to_be_empty()


def test_rows_become_the_recipe_without_defaults(page):
    page.open().add("child_style", weight="0.65")
    page.add("watercolor-v2", schedule="0.2@0, 0.65@0.5", te_weight="0.3")
    page.field(1, "curve").select_option("cosine")
    page.field(1, "apply_to").select_option(label="prompt only")
    page.field(1, "blocks.out").fill("0.5")
    page.field(1, "hires").fill("0.4@0, 0.1@1")
    expect(page.plot.locator("polyline")).to_have_count(2)
    assert json.loads(page.received()) == {"loras": [
        {"name": "child_style", "weight": 0.65},
        {"name": "watercolor-v2", "schedule": "0.2@0, 0.65@0.5", "curve": "cosine", "te_weight": 0.3,
         "blocks": {"out": 0.5}, "apply_to": "cond", "hires": {"schedule": "0.4@0, 0.1@1"}}]}
    page.field(1, "hires").fill("0.4")
    assert page.recipe()["loras"][1]["hires"] == {"weight": 0.4}
    page.button("Remove LoRA 1").click()
    assert [lora["name"] for lora in page.recipe()["loras"]] == ["watercolor-v2"]


def test_block_weights_are_typed_as_a_list_or_by_name(page):
    page.open().add("child_style", weight="0.65")
    page.field(0, "blocks.out").fill("0.5")
    page.field(0, "blocks").fill('{"IN04": 0.2, "attention": "0@0, 1@1"}')
    assert json.loads(page.received())["loras"][0]["blocks"] == {"out": 0.5, "IN04": 0.2, "attention": "0@0, 1@1"}
    expect(page.error).to_be_empty()
    page.field(0, "blocks").fill("1,0,0.5")
    expect(page.error).to_contain_text("loras[0].blocks: 3 block weights; accepted: lists of 12, 17, 20, 26")
    numbers = ",".join(["1", *["0.5"] * 16])
    page.field(0, "blocks").fill(numbers)
    expect(page.error).to_be_empty()
    assert page.recipe()["loras"][0]["blocks"] == numbers
    pasted = {"loras": [{"name": "child_style", "weight": 0.65, "blocks": [1, *[0.25] * 16]}]}
    page.paste("a robot\nSteps: 12, Sampler: Euler a, Seed: 3, SciArt: " + json.dumps(json.dumps(pasted)))
    expect(page.field(0, "blocks")).to_have_value(numbers.replace("0.5", "0.25"))
    assert page.recipe() == pasted
    page.field(0, "blocks").fill("")
    assert "blocks" not in page.recipe()["loras"][0]


def test_schedule_replaces_weight_and_weight_replaces_schedule(page):
    page.open().add("child_style", weight="0.7")
    page.field(0, "schedule").fill("0.2@0, 0.65@0.5")
    assert page.recipe()["loras"] == [{"name": "child_style", "schedule": "0.2@0, 0.65@0.5"}]
    expect(page.row(0).get_by_text("Weight (the schedule is used)")).to_be_visible()
    page.field(0, "schedule").fill("")
    assert page.recipe()["loras"] == [{"name": "child_style", "weight": 0.7}]
    page.field(0, "schedule").fill("0.2@0, 0.65@0.5")
    page.field(0, "weight").fill("-4.5")
    expect(page.field(0, "schedule")).to_have_value("")
    assert page.recipe()["loras"] == [{"name": "child_style", "weight": -4.5}]
    page.row(0).get_by_label("Weight, slider").fill("1.5")
    expect(page.field(0, "weight")).to_have_value("1.5")


def test_switching_off_keeps_the_rows(page):
    page.open().add("child_style", weight="0.65")
    page.enabled.uncheck()
    assert page.recipe() == {"enabled": False, "loras": [{"name": "child_style", "weight": 0.65}]}
    page.enabled.check()
    assert page.recipe() == {"loras": [{"name": "child_style", "weight": 0.65}]}
    page.enabled.uncheck()
    page.button("Remove LoRA 1").click()
    assert page.text() == ""


@pytest.mark.parametrize("field, text, message", [
    ("schedule", "0.2@x", "loras[0].schedule: cannot read '0.2@x'"),
    ("weight", "11", "loras[0].weight: 11 is out of range"),
    ("name", "unknown", "loras[0].name: no LoRA 'unknown'"),
    ("hires", "many", "loras[0].hires.schedule: cannot read 'many'"),
    ("blocks.mid", "99", "loras[0].blocks.mid: 99 is out of range"),
])
def test_what_python_refuses_is_told_and_marked_until_it_is_right(page, field, text, message):
    page.open().add("child_style", weight="0.65")
    expect(page.plot).to_be_visible()
    page.field(0, field).fill(text)
    expect(page.error).to_contain_text(message)
    expect(page.field(0, field)).to_have_attribute("aria-invalid", "true")
    page.field(0, field).fill("child_style" if field == "name" else "0.5")
    expect(page.error).to_be_empty()
    expect(page.panel.locator("[aria-invalid]")).to_have_count(0)


def test_a_fault_in_the_server_is_told_and_does_not_stop_the_panel(address, browser):
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("#sciart_txt2img_enabled")
    page = Page(tab).open()
    page.add("crash", weight="0.65")
    expect(page.error).to_contain_text("could not answer")
    page.field(0, "name").fill("child_style")
    expect(page.plot).to_be_visible()
    expect(page.error).to_be_empty()
    context.close()


def test_the_preview_follows_the_pages_steps(page):
    page.open().add("child_style", weight="0.65")
    expect(page.plot.locator("circle")).to_have_count(20)
    page.page.locator("#txt2img_steps input[type=number]").fill("7")
    expect(page.plot.locator("circle")).to_have_count(7)


def test_a_preset_fills_rows_once_its_roles_are_bound(page):
    page.open()
    page.preset("Science imagination").check()
    expect(page.panel.locator(".sciart-description")).to_contain_text("A child's science-imagination drawing")
    likely = page.panel.locator(".sciart-presets [data-role=watercolor] optgroup[label=likely] option")
    assert likely.all_text_contents() == ["수채화", "watercolor-v2"]
    for role in ("child", "watercolor", "science"):
        page.panel.locator(f".sciart-presets [data-role={role}]").select_option("")
    page.button("Use preset").click()
    expect(page.error).to_contain_text("loras[0].role: 'child' is not bound")
    expect(page.field(0, "name")).to_have_attribute("aria-invalid", "true")
    page.field(0, "name").select_option("child_style")
    expect(page.field(0, "name")).to_have_value("child_style")
    bind_all(page)
    expect(page.field(2, "name")).to_have_value("science_fiction")
    expect(page.plot.locator("polyline")).to_have_count(3)
    expect(page.enabled).to_be_checked()
    assert page.recipe() == {"loras": [{"name": "child_style", "weight": 0.65},
                                       {"name": "watercolor-v2", "weight": 0.55},
                                       {"name": "science_fiction", "weight": 0.5}]}


def test_prompt_and_settings_go_through_the_hosts_paste(page):
    page.open()
    page.page.locator("#txt2img_neg_prompt textarea").fill("left over")
    page.preset("Science imagination, 1024x1024").check()
    bind_all(page)
    prompts = page.panel.get_by_label("Prompt of the preset").locator("option").all_text_contents()
    page.panel.get_by_label("Prompt of the preset").select_option(index=1)
    page.button("Prompt & settings too").click()
    expect(page.page.locator("#txt2img_prompt textarea")).to_have_value(prompts[1])
    expect(page.page.locator("#txt2img_neg_prompt textarea")).to_have_value("")
    numbers = {"steps": "35", "cfg_scale": "6", "seed": "777", "width": "512", "height": "512"}
    for name, value in numbers.items():
        expect(page.page.locator(f"#txt2img_{name} input[type=number]")).to_have_value(value)
    expect(page.page.locator("#txt2img_sampling input")).to_have_value("Euler a")
    parsed = page.page.locator("#txt2img_parsed")
    for text in ("Denoising strength", "Hires upscale", "Hires steps", "Hires upscaler"):
        expect(parsed).to_contain_text(text)
    expect(page.field(2, "name")).to_have_value("science_fiction")
    assert len(json.loads(page.received())["loras"]) == 3


def test_a_pasted_infotext_redraws_the_rows(page):
    recipe = {"loras": [{"name": 'other <b>&"quoted"', "schedule": [[0, 0.2], [0.5, 0.65]], "curve": "step"},
                        {"name": "수채화", "weight": 0.4, "blocks": {"mid": 0}}]}
    page.open().add("zz last")
    page.paste("a robot\nSteps: 12, Sampler: Euler a, Seed: 3, SciArt: " + json.dumps(json.dumps(recipe)))
    expect(page.field(0, "schedule")).to_have_value("0.2@0, 0.65@0.5")
    expect(page.field(0, "name")).to_have_value('other <b>&"quoted"')
    expect(page.field(0, "curve")).to_have_value("step")
    expect(page.field(1, "blocks.mid")).to_be_visible()
    expect(page.plot.locator("polyline")).to_have_count(2)
    assert page.recipe() == recipe
    page.field(1, "weight").fill("0.5")
    assert page.recipe()["loras"][0] == recipe["loras"][0]


def test_the_json_can_be_edited_and_what_has_no_widget_is_kept(page):
    page.open().add("child_style", weight="0.65")
    page.panel.get_by_text("Recipe (JSON)").click()
    json_text = page.panel.get_by_label("Recipe as JSON")
    assert json.loads(json_text.input_value()) == page.recipe()
    json_text.fill('{"execution": "branch", "loras": [{"name": "zz last", "weight": 0.1}]}')
    expect(page.field(0, "name")).to_have_value("zz last")
    page.field(0, "weight").fill("0.2")
    assert page.recipe() == {"loras": [{"name": "zz last", "weight": 0.2}], "execution": "branch"}
    json_text.fill('{"executio": "branch", "loras": [{"name": "zz last", "weight": 0.1}]}')
    expect(page.error).to_contain_text("executio: unknown field; did you mean 'execution'?")
    expect(json_text).to_have_attribute("aria-invalid", "true")
    json_text.fill('{"loras": [')
    expect(page.error).to_contain_text("recipe: not valid JSON")
    assert page.received() == '{"loras": ['


def test_presets_are_saved_used_and_deleted(page):
    page.open().add("child_style", weight="0.65")
    page.panel.get_by_text("Save as preset").click()
    page.panel.get_by_label("Name", exact=True).fill("Not A Name")
    page.button("Save preset").click()
    expect(page.panel.locator(".sciart-note")).to_contain_text("name: 'Not A Name'; accepted:")
    page.panel.get_by_label("Name", exact=True).fill("mine")
    page.panel.get_by_label("Title", exact=True).fill("My own")
    page.button("Save preset").click()
    expect(page.panel.locator(".sciart-note")).to_contain_text("Saved")
    expect(page.preset("My own")).to_be_checked()
    page.button("Remove LoRA 1").click()
    page.button("Use preset").click()
    expect(page.field(0, "name")).to_have_value("child_style")
    page.on("dialog", lambda dialog: dialog.accept())
    page.button("Delete the chosen preset").click()
    expect(page.panel.locator(".sciart-note")).to_contain_text("Deleted")
    expect(page.preset("My own")).to_have_count(0)


def test_refresh_finds_new_loras(page):
    page.open()
    names = page.panel.locator("datalist option")
    expect(names).not_to_have_count(0)
    before = names.count()
    page.button("Refresh the list of LoRAs").click()
    expect(names).to_have_count(before + 1)


def test_both_tabs_have_a_panel_of_their_own(page):
    page.open().add("child_style", weight="0.65")
    page.page.get_by_role("button", name="img2img", exact=True).click()
    other = Page(page.page, "img2img").open()
    other.add("watercolor-v2", weight="0.3")
    expect(other.plot).to_be_visible()
    assert json.loads(other.received())["loras"][0]["name"] == "watercolor-v2"
    assert page.recipe()["loras"][0]["name"] == "child_style"


def test_each_lora_gets_its_subject_once_they_are_to_act_on_their_own(page):
    page.open().add("child_style", weight="1")
    expect(page.panel.locator("[data-field=compose]")).to_have_count(0)  # one LoRA shares with nobody
    page.add("watercolor-v2", weight="1")
    expect(page.field(0, "subject")).to_have_count(0)
    page.panel.locator("[data-field=compose]").select_option(label="each on its own subject")
    page.field(0, "subject").fill("rocket")
    page.field(0, "trigger").fill("red striped")
    page.field(1, "subject").fill("robot")
    page.field(1, "region").fill("0.5 0, 1 1")
    page.panel.get_by_text("Advanced").click()
    page.panel.locator("[data-field='guidance.mask_threshold']").fill("0.4")
    page.panel.locator("[data-field='guidance.opacity']").fill("1@0, 0.5@0.6")
    page.panel.locator("[data-field='guidance.opacity_crowded']").fill("0.8")
    page.panel.locator("[data-field='guidance.offload']").check()
    page.panel.locator("[data-field='guidance.refine']").fill("5@0, 2@0.2")
    page.panel.locator("[data-field='guidance.regions']").check()
    page.panel.locator("[data-field='guidance.show']").check()
    page.panel.locator("[data-field='guidance.hires']").uncheck()
    assert json.loads(page.received()) == {"compose": "contrastive",
        "guidance": {"mask_threshold": 0.4, "opacity": "1@0, 0.5@0.6", "opacity_crowded": "0.8", "offload": True,
                     "refine": {"0": 5, "0.2": 2}, "regions": "attention", "show": True, "hires": False},
        "loras": [{"name": "child_style", "weight": 1, "subject": "rocket", "trigger": "red striped"},
                  {"name": "watercolor-v2", "weight": 1, "subject": "robot", "region": [0.5, 0, 1, 1]}]}
    expect(page.error).to_be_empty()
    page.panel.locator("[data-field='guidance.refine']").fill("often")
    expect(page.error).to_contain_text("guidance.refine: expected an object")
    page.panel.locator("[data-field='guidance.refine']").fill("")
    page.field(1, "region").fill("0.5 0 1")
    expect(page.error).to_contain_text("loras[1].region: expected four numbers")
    page.field(1, "region").fill("")
    page.panel.locator("[data-field=compose]").select_option(label="mixed all over the picture")
    expect(page.field(0, "subject")).to_have_count(0)
    assert "compose" not in page.recipe()


def choose_compose(page, text):
    page.panel.locator("[data-field=compose]").select_option(label=text)


def test_each_way_to_compose_shows_its_own_settings(page):
    page.open().add("child_style", weight="1")
    page.add("watercolor-v2", weight="1")
    choose_compose(page, "in turn, one at a time")
    page.panel.locator("[data-field='composition.period']").fill("3")
    page.panel.locator("[data-field='composition.order']").fill("watercolor-v2, child_style")
    assert json.loads(page.received())["composition"] == {"period": 3, "order": ["watercolor-v2", "child_style"]}
    expect(page.error).to_be_empty()
    page.panel.locator("[data-field='composition.order']").fill("watercolor-v2")
    expect(page.error).to_contain_text("composition.order: child_style never acts")
    choose_compose(page, "each where it changes most")
    expect(page.error).to_be_empty()  # what another way was set by is gone
    expect(page.panel.locator("[data-field='composition.period']")).to_have_count(0)
    page.panel.locator("[data-field='composition.temperature']").fill("0.1")
    page.panel.locator("[data-field='composition.hires']").uncheck()
    assert json.loads(page.received())["composition"] == {"temperature": 0.1, "hires": False}
    choose_compose(page, "each on its own, averaged")
    assert page.recipe()["compose"] == "composite" and "composition" not in page.recipe()
    expect(page.error).to_be_empty()


def test_masks_in_one_row_take_subjects_and_a_threshold(page):
    page.open().add("child_style", weight="1")
    page.add("watercolor-v2", weight="1")
    choose_compose(page, "each where its subject is, in one go")
    expect(page.error).to_contain_text("loras[0].subject: missing; compose masked needs a LoRA with a subject")
    page.field(0, "subject").fill("rocket")
    page.field(1, "subject").fill("robot")
    page.field(1, "region").fill("0.5 0, 1 1")
    page.panel.locator("[data-field='masking.threshold']").fill("0.3")
    page.panel.locator("[data-field='masking.negative']").fill("0.7")
    page.panel.locator("[data-field='guidance.show']").check()
    page.panel.locator("[data-field='guidance.hires']").uncheck()
    assert json.loads(page.received()) == {
        "compose": "masked", "masking": {"threshold": 0.3, "negative": 0.7}, "guidance": {"show": True, "hires": False},
        "loras": [{"name": "child_style", "weight": 1, "subject": "rocket"},
                  {"name": "watercolor-v2", "weight": 1, "subject": "robot", "region": [0.5, 0, 1, 1]}]}
    expect(page.error).to_be_empty()
    choose_compose(page, "mixed all over the picture")
    assert "masking" not in page.recipe()


def test_a_region_is_a_box_or_a_mask_picture(page, tmp_path):
    page.open().add("child_style", weight="1")
    page.add("watercolor-v2", weight="1")
    choose_compose(page, "each in its region")
    expect(page.error).to_contain_text("loras[0].region: missing")
    page.field(0, "region").fill("0 0 0.5 1")
    page.panel.locator("[data-field='composition.feather']").fill("0.1")
    drawn = Image.new("L", (900, 600))
    drawn.paste(255, (450, 0, 900, 600))
    drawn.save(tmp_path / "right.png")
    page.field(1, "mask").set_input_files(tmp_path / "right.png")
    expect(page.field(1, "region")).to_have_value("mask picture")
    expect(page.error).to_be_empty()
    recipe = parse_recipe(json.loads(page.received()))
    assert recipe.loras[0].region == [0, 0, 0.5, 1] and recipe.composition.feather == 0.1
    mask = mask_values(recipe.loras[1].region)
    assert mask.shape == (43, 64) and (mask[:, :31] == 0).all() and (mask[:, 33:] == 1).all()
    (tmp_path / "notes.png").write_text("no picture", encoding="utf-8")
    page.field(1, "mask").set_input_files(tmp_path / "notes.png")
    expect(page.error).to_contain_text("loras[1].region: got a text that begins with 'notes.png (no picture)'")
    page.field(1, "region").fill("")
    expect(page.error).to_be_empty()
    choose_compose(page, "mixed all over the picture")
    expect(page.error).to_contain_text("loras[0].region: needs a subject")
    page.field(0, "region").fill("")  # still there to be taken away
    expect(page.error).to_be_empty()


def test_how_loras_are_joined_is_chosen_with_the_numbers_it_reads(page):
    page.open().add("child_style", weight="1")
    expect(page.panel.locator("[data-field=combine]")).to_have_count(0)
    page.add("watercolor-v2", weight="0.5")
    choice = page.panel.locator("[data-field=combine]")
    expect(page.panel.locator("[data-field^='combining.']")).to_have_count(0)
    choice.select_option(label="random entries, by majority of signs (DARE-TIES)")
    page.panel.locator("[data-field='combining.density']").fill("0.3")
    page.panel.locator("[data-field='combining.seed']").fill("7")
    assert json.loads(page.received()) == {
        "loras": [{"name": "child_style", "weight": 1}, {"name": "watercolor-v2", "weight": 0.5}],
        "combine": "dare-ties", "combining": {"density": 0.3, "seed": 7}}
    expect(page.error).to_be_empty()
    page.panel.locator("[data-field='combining.density']").fill("2")
    expect(page.error).to_contain_text("combining.density: 2 is out of range")
    page.panel.locator("[data-field='combining.density']").fill("0.3")
    choice.select_option(label="each leaves the stronger ones their directions")
    expect(page.panel.locator("[data-field='combining.directions']")).to_have_count(1)
    expect(page.panel.locator("[data-field='combining.density']")).to_have_count(0)
    page.panel.locator("[data-field='combining.directions']").fill("4")
    page.panel.locator("[data-field='combining.strength']").fill("0.5")
    assert json.loads(page.received())["combining"] == {
        "density": 0.3, "seed": 7, "directions": 4, "strength": 0.5}
    choice.select_option(label="by their sum")
    assert "combine" not in page.recipe()


def test_every_widget_has_a_name_and_is_reached_by_keyboard(page):
    page.open().add("child_style", weight="0.65")
    page.row(0).get_by_text("More", exact=True).click()
    nameless = page.panel.evaluate("""(panel) =>
        [...panel.querySelectorAll("input, select, textarea, button")]
        .filter((node) => !(node.ariaLabel || node.labels?.length || node.textContent.trim()))
        .map((node) => node.outerHTML)""")
    assert nameless == []
    page.field(0, "name").focus()
    reached = []
    for _ in range(9):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate(
            "document.activeElement.dataset.field || document.activeElement.tagName"))
    assert reached == ["INPUT", "weight", "BUTTON", "SUMMARY", "schedule", "te_weight", "apply_to", "negative", "hires"]


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_page(page, width):
    page.page.set_viewport_size({"width": width, "height": 900})
    page.open().add("a name that is much longer than any field on a phone could ever show", weight="0.65")
    page.add("watercolor-v2", schedule="0.2@0, 0.65@0.5")
    page.row(1).get_by_text("More", exact=True).click()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    right = page.panel.evaluate("(panel) => panel.getBoundingClientRect().right")
    for box in page.panel.locator("input:visible, select:visible, button:visible").all():
        if not box.evaluate("(node) => node.closest('.sciart-cards, .sciart-roles')"):  # these scroll
            bounds = box.bounding_box()
            assert bounds["x"] + bounds["width"] <= right + 1, box.evaluate("(node) => node.outerHTML")
