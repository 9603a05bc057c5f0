"""What the panel asks of this host: its LoRAs, the presets, and the preview of a recipe."""

from __future__ import annotations

from ....compose.unread import unread
from ....presets import PresetStore, resolve, suggest
from ....presets.pictures import listed_with_pictures, save_thumbnail
from ....recipe import Recipe
from ....ui.panel import PanelActions, PanelChoices, PanelStart, plan_preview
from .. import lora_files, settings
from ..model.session import lora_paths
from ..settings import OwnPresets
from .cards import cards


def panel_actions() -> PanelActions:
    """The panel's questions, answered by the host's files and the preset folders."""
    store = OwnPresets()
    return PanelActions(choices=lambda: _choices(store), cards=cards.all,
                        preview=lambda *args: _preview(store, *args), bind=store.bind,
                        save_preset=store.save, delete_preset=store.delete,
                        save_thumbnail=lambda name, picture: save_thumbnail(store, name, picture),
                        refresh=lora_files.refresh)


def panel_start() -> PanelStart:
    """The panel as the settings have it begin; a preset is filled in as far as it can be."""
    return PanelStart(settings.panel_is_open(), settings.panel_recipe(), settings.help_address())


def _choices(store: PresetStore) -> PanelChoices:
    names = lora_files.names()
    presets = listed_with_pictures(store)
    roles = {role for preset in presets for role in preset.get("roles", [])}
    suggestions = {role: suggest(role, names) for role in sorted(roles)}
    bindings, wrong = store.listed_bindings()
    bindings = {role: lora_files.preferred_name(name) for role, name in bindings.items()}
    first = [*bindings.values(), *(name for found in suggestions.values() for name in found)]
    return PanelChoices(cards.all(first), presets, bindings, wrong, suggestions, cards.model())


def _preview(store: PresetStore, recipe_text: str, steps: int, hires_steps: int) -> dict:
    def resolve_and_find(recipe: Recipe) -> Recipe:
        resolved = resolve(recipe, store)
        lora_paths(resolved)
        return resolved

    return {**plan_preview(recipe_text, steps, hires_steps, resolve_and_find, unread), "model": cards.model()}
