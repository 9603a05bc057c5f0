"""What `generate` and `influence` are asked for: checked before a model is read, then its model and LoRAs, read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rich_click as click

from .. import standalone
from ..presets import PresetStore
from ..recipe import Recipe
from ..standalone.model_facts import ModelFacts, model_facts
from ..standalone.prompts.check import check_prompts
from .command import RESULT, options
from .mixture import RECIPE_OPTIONS, check_loras, lora_dir_option, lora_folder, recipe_data, resolved_recipe
from .model import MODEL_OPTIONS, check_device, loaded, name_of
from .progress import working
from .settings import PICTURE_OPTIONS, preset_settings, settings_of

if TYPE_CHECKING:
    from ..lora.file import LoraFile

ASKED_OPTIONS = options(PICTURE_OPTIONS, RECIPE_OPTIONS, lora_dir_option(), MODEL_OPTIONS)
QUIET_OPTION = click.option("--quiet", is_flag=True, panel=RESULT, help="No progress bar.")


class Asked(NamedTuple):
    """settings: the fields of `standalone.generate.Settings`; notes: on them; loras: the folder of LoRAs."""

    recipe: Recipe
    settings: dict[str, Any]
    notes: list[str]
    loras: Path | None
    facts: ModelFacts


def asked_of(given: Any) -> Asked:
    """What the options ask for. Raises `SciArtError` for all that can be known before anything heavy is imported."""
    store, folder = PresetStore(), lora_folder(given)
    data = recipe_data(given, store)
    recipe, preset = resolved_recipe(data, store, folder), preset_settings(data, store)
    facts = model_facts(given.model, given.config)
    settings, notes = settings_of(given, preset, facts)
    check_loras(recipe, folder, settings["prompt"])
    check_prompts(recipe, settings["prompt"], settings["negative_prompt"], settings["steps"])
    return Asked(recipe, settings, notes, folder, facts)


def read(given: Any, asked: Asked) -> tuple[Any, list[LoraFile]]:
    """The pipeline and the LoRAs, which are looked at first. Raises `SciArtError`."""
    standalone.prepare()
    check_device(given.device)
    with working("Loading", given.quiet):
        from ..mixer.fit import check_families
        from ..standalone.generate import load_loras

        loras = load_loras(asked.recipe, asked.loras, asked.settings["prompt"])
        check_families(loras, asked.facts.family, name_of(given))
    return loaded(given), loras
