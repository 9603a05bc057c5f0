"""Regions drawn on the real WebUI's own page, over the picture that it has made, and brought back by its paste."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from mouse import drag
from server import ONE_THREAD, HostServer
from test_page import Tab, expect, opened

from sciart_ext.recipe import parse_recipe
from sciart_ext.recipe.mask_picture import mask_values

pytestmark = pytest.mark.browser

PATIENCE = 120_000
"""milliseconds; the host's page is large, and the machine may be busy"""
NAMES = ("red-striped-rocket", "yellow-visor-robot")
SEED = 3


@pytest.fixture
def page(browser, tiny_world_models):
    with HostServer(models=tiny_world_models, checkpoint="sciart-tiny.safetensors", env=ONE_THREAD, ui=True) as server, \
            opened(browser, server, height=1600, patience=PATIENCE) as tab:
        yield tab


def draw_in(tab: Tab, index: int):
    tab.panel.locator(f"[data-draw='{index}']").click()
    return tab.rows.nth(index).locator("canvas")


def recipe_in(infotext: str):
    return parse_recipe(json.loads(re.search(r'SciArt: ("(?:\\.|[^"\\])*")', infotext)[1]))


def test_what_is_drawn_over_the_last_picture_is_in_the_next_ones_infotext_and_comes_back(page: Tab) -> None:
    page.open()
    page.fill("a rocket and a robot in space", steps=8, width=128, height=192, seed=SEED)
    first = page.generate()
    assert "SciArt:" not in first
    for name in NAMES:
        page.add(name)
    page.panel.locator("[data-field=compose]").select_option("regions")
    page.panel.locator("[data-field='composition.rows']").check()
    canvas = draw_in(page, 0)
    assert canvas.evaluate("(canvas) => canvas.height / canvas.width") == pytest.approx(1.5, abs=0.01)
    drag(page.page, canvas, (0.05, 0.05), (0.95, 0.45))
    canvas = draw_in(page, 1)
    page.rows.nth(1).locator("[data-tool=brush]").click()
    drag(page.page, canvas, (0.2, 0.75), (0.8, 0.75), (0.8, 0.8), (0.2, 0.8))
    expect(page.error).to_be_empty()
    if folder := os.environ.get("SCIART_SCREENSHOTS"):
        page.page.screenshot(path=Path(folder) / "drawing.png")
    drawn = parse_recipe(page.recipe())
    page.find("generate").click()
    shown = page.page.locator("#html_info_txt2img p").first
    expect(shown).to_contain_text("SciArt:")
    infotext = shown.inner_text()
    kept = recipe_in(infotext)
    assert kept.composition.rows == "one" and kept.loras == drawn.loras
    assert kept.loras[0].region == pytest.approx([0.05, 0.05, 0.95, 0.45], abs=0.02)
    mask = mask_values(kept.loras[1].region)
    assert mask.shape == (64, 43) and mask[49, 10:34].min() == 1 and mask[:36].max() == 0
    page.button("Remove LoRA 1").click()
    page.paste(infotext)
    expect(page.rows).to_have_count(2)
    expect(page.field(0, "region")).to_have_value(" ".join(f"{side:g}" for side in kept.loras[0].region))
    assert np.array_equal(mask_values(parse_recipe(page.recipe()).loras[1].region), mask)
