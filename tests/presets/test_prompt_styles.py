"""The shipped prompt styles carry the presets' prompts, word for word."""

from __future__ import annotations

from sciart_ext.presets import PresetStore
from sciart_ext.presets.prompt_styles import STYLES_DIR, shipped_styles


def test_the_prompts_of_the_presets_are_styles(tmp_path):
    preset = PresetStore(user_dir=tmp_path).read("science-imagination").data
    texts = {style.prompt for style in shipped_styles()}
    assert set(preset["prompts"]) <= texts and preset["txt2img"]["prompt"] in texts


def test_one_puts_the_look_around_what_the_user_wrote(tmp_path):
    preset = PresetStore(user_dir=tmp_path).read("science-imagination").data
    (look,) = (style for style in shipped_styles() if "{prompt}" in style.prompt)
    assert preset["prompts"][0].endswith(look.prompt.removeprefix("{prompt}. "))


def test_names_are_unique_and_files_plain():
    names = [style.name for style in shipped_styles()]
    assert len(set(names)) == len(names) == 3 and all(name.startswith("SciArt: ") for name in names)
    assert all(b"\r" not in path.read_bytes() for path in STYLES_DIR.glob("*.csv"))
