"""The demonstration: what it compares, and its page, with fewer steps than `make demo` takes."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.presets import PresetStore
from sciart_ext.standalone.demo import PRESET, SCENES, make_demo, preset, scheduled


def test_it_plays_the_preset_and_changes_its_weights():
    recipe, txt2img = preset()
    assert [(lora.name, lora.weight) for lora in recipe.loras] == [
        ("child", 0.65), ("watercolor", 0.55), ("science", 0.5)]
    assert txt2img == PresetStore().read(PRESET).data["txt2img"]
    changing = scheduled(recipe)
    assert [lora.name for lora in changing.loras] == ["child", "watercolor", "science"]
    assert all(lora.at(0) != lora.at(1) for lora in changing.loras)


def test_its_page_has_everything_in_it_and_ends_with_the_report(tmp_path):
    page, told = make_demo(tmp_path, steps=2)
    text = page.read_text(encoding="utf-8")
    assert page.name == "index.html" and not re.search(r'(src|href)="(?!data:)', text)
    for scene in SCENES:
        assert scene in text
        for title in ("no LoRA", "only child", "all", "changing weights"):
            assert f'alt="{scene}, {title}"' in text
    assert told.made["prompt"] == SCENES[0] and len(told.pictures) == 8
    for sentence in told.sentences():
        assert sentence in text
    assert text.index("How strong each style is") < text.index("What each LoRA did")
    assert (tmp_path / "influence" / "index.html").is_file()
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"{n}_changing_weights.png" for n in (1, 2, 3)]
