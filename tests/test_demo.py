"""The demonstration: what it compares, and its page, with fewer steps than `make demo` takes."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.presets import PresetStore
from sciart_ext.standalone.demo import PRESET, SCENES, make_demo, parts_of, preset


def test_it_compares_base_parts_and_mixtures_of_the_preset():
    recipe, txt2img = preset()
    assert [(lora.name, lora.weight) for lora in recipe.loras] == [
        ("child", 0.65), ("watercolor", 0.55), ("science", 0.5)]
    assert txt2img == PresetStore().read(PRESET).data["txt2img"]
    parts = parts_of(recipe)
    assert list(parts) == ["base", "only child", "only watercolor", "only science", "mixture", "changing mixture",
                           "without child", "without watercolor", "without science"]
    assert not parts["base"].enabled and parts["mixture"] == recipe
    assert [lora.name for lora in parts["without child"].loras] == ["watercolor", "science"]


def test_its_page_has_everything_in_it(tmp_path):
    page = make_demo(tmp_path, steps=2)
    text = page.read_text(encoding="utf-8")
    assert page.name == "index.html" and text.count("data:image/png;base64,") == 6 * len(SCENES)
    assert not re.search(r'(src|href)="(?!data:)', text)
    for scene in SCENES:
        assert scene in text
    assert len(list(tmp_path.glob("*.png"))) == 9 * len(SCENES)
