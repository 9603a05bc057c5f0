"""Settings → SciArt: the panel's start, limits, the folder of one's own presets, and what infotext says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modules import paths, sd_vae, shared, ui_components
from modules.ui_gradio_extensions import webpath

from ...errors import SciArtError, shown
from ...presets import BUILTIN_DIR, USER_DIR, PresetStore, filled_in
from ...recipe import Recipe, recipe_to_text
from ...ui.notices import help_link
from .lora_files import unique_name

SECTION = ("sciart", "SciArt")
START, OPEN, MEMORY, STAYS, AHEAD, CHECKED, FOLDER, VERSION = (f"sciart_{name}" for name in (
    "start", "panel_open", "memory_limit_mb", "stays_on_gpu", "merge_ahead", "check_others", "user_dir",
    "version_in_infotext"))


class OwnPresets(PresetStore):
    """The presets; one's own are where the settings say at the moment of asking."""

    def __init__(self) -> None:
        self.builtin_dir = BUILTIN_DIR

    @property
    def user_dir(self) -> Path:
        return user_dir()

    def kept_name(self, lora: str) -> str:
        return unique_name(lora)


def register_settings() -> None:
    """Adds the section to the host's settings. When scripts are loaded, as the built-in Lora does, not on_ui_settings:
    without a page (--nowebui) that comes after the API has listed what there is to set."""
    option = shared.OptionInfo
    options = {
        "sciart_help": shared.OptionHTML(f"SciArt mixes, steers and explains LoRAs.{help_link(help_address())}"),
        START: option("", "Preset or recipe that the panel opens with", ui_components.DropdownEditable,
                      lambda: {"choices": ["", *_preset_names()]}, refresh=lambda: None)
        .info("name of a preset, or a recipe as JSON; empty: none").needs_reload_ui(),
        OPEN: option(False, "Open the panel when the page is loaded").needs_reload_ui(),
        MEMORY: option(0, "Most memory for merged weights, in MB")
        .info("of recipes that name no memory_limit_mb; 0: automatic; it is written into the infotext"),
        STAYS: option(False, "Keep merged weights and LoRAs on the GPU between pictures")
        .info("the next picture starts a little sooner; off: after each picture all of it is let go"),
        AHEAD: option(False, "Merge the next step's weights on the GPU while a step runs")
        .info("for weights that change at each step; takes the memory of merged weights twice"),
        CHECKED: option(True, "Check that other extensions know the rows in which LoRAs act alone")
        .info("two more calls of the model for each picture with such rows, and only where another extension takes "
              "part in it; off: a picture may come out wrong without a word"),
        FOLDER: option("", "Folder of your own presets and roles")
        .info("must exist; empty: what SCIART_USER_DIR names, or else the extension's folder user"),
        VERSION: option(True, "Write SciArt's version into the infotext"),
    }
    for name, one in options.items():
        one.section = SECTION
        shared.opts.add_option(name, one)


def user_dir() -> Path:
    """The setting, or else the environment's SCIART_USER_DIR, or else the extension's own folder."""
    given = str(getattr(shared.opts, FOLDER) or "").strip()
    if not given:
        return USER_DIR
    folder = Path(paths.data_path) / Path(given).expanduser()  # an absolute path stays as it is
    if not folder.is_dir():
        raise SciArtError(FOLDER, f"there is no folder {folder}; create it, or name another in Settings → SciArt")
    return folder


def with_memory_limit(recipe: Recipe) -> Recipe:
    """The recipe, with the settings' limit where it names none: merged and branched layers agree to rounding only, so
    what is not in the recipe would not make the same picture again."""
    given = getattr(shared.opts, MEMORY)
    if recipe.memory_limit_mb is not None or not given:
        return recipe
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= 1e6:
        raise SciArtError(MEMORY, f"{shown(given)} is out of range; accepted: a number of MB from 0 to 1e6 in Settings "
                                  "→ SciArt")
    return recipe.copy(update={"memory_limit_mb": float(given)})


def stays_on_gpu() -> bool:
    """Whether what a picture needed on the GPU stays there for the next."""
    return bool(getattr(shared.opts, STAYS))


def merges_ahead() -> bool:
    """Whether the merged weights of the next step are made while a step runs."""
    return bool(getattr(shared.opts, AHEAD))


def others_are_checked() -> bool:
    """Whether it is checked that other extensions know the rows in which LoRAs act alone."""
    return bool(getattr(shared.opts, CHECKED))


def panel_recipe() -> str:
    """The recipe that the panel opens with, as its text. What is wrong with it the panel says, as of any recipe."""
    given = str(getattr(shared.opts, START) or "").strip()
    if not given or given.startswith("{"):
        return given
    recipe, store = Recipe(preset=given), OwnPresets()
    try:
        data, bound = filled_in(recipe, store), store.bindings()
    except SciArtError:
        return recipe_to_text(recipe)
    loras = [{"name": bound[lora["role"]], **{key: lora[key] for key in lora if key != "role"}}
             if lora.get("role") in bound else lora for lora in data.get("loras", [])]
    return json.dumps({**data, "loras": loras}, ensure_ascii=False)


@contextmanager
def settings_kept(names: Iterable[str]) -> Iterator[None]:
    """Takes away what is set of these while it lasts and was not set before: after a request's override_settings the
    host brings back only those that were. To be used in one's turn in the host's queue alone."""
    unset = [name for name in names if name not in shared.opts.data]
    try:
        yield
    finally:
        for name in unset:
            shared.opts.data.pop(name, None)
        if "sd_vae" in unset:
            sd_vae.reload_vae_weights()


def help_address() -> str:
    """The manual beside this extension, in the page's language where there is one, as the host serves its files."""
    root = Path(__file__).parents[3]
    language = str(shared.opts.localization).split("_")[0].split("-")[0]
    manual = next((path for path in (root / f"README.{language}.md", root / "README.md") if path.is_file()), None)
    return webpath(str(manual)) if manual else ""


def panel_is_open() -> bool:
    """Whether the panel is open when the page is loaded."""
    return bool(getattr(shared.opts, OPEN))


def version_is_told() -> bool:
    """Whether infotext says which SciArt made a picture."""
    return bool(getattr(shared.opts, VERSION))


def _preset_names() -> list[str]:
    try:
        return OwnPresets().names()
    except SciArtError:  # a wrong folder: told where presets are used, and the setting must still be there to mend it
        return sorted(path.stem for path in BUILTIN_DIR.glob("*.json"))
