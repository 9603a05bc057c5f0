"""Pasting infotext: a picture made without SciArt switches SciArt off, so that the paste makes that picture."""

from __future__ import annotations

from modules import script_callbacks

from ..recipe import INFOTEXT_KEY


def register_infotext() -> None:
    """Takes part in the host's paste button."""
    script_callbacks.on_infotext_pasted(switch_off_unless_given)


def switch_off_unless_given(infotext: str, params: dict) -> None:
    """Empties the recipe where a whole infotext (one with Steps) has none."""
    if "Steps" in params:
        params.setdefault(INFOTEXT_KEY, "")
