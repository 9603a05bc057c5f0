"""The shipped prompt styles among the host's own, for whoever asks for it: nothing is added by itself."""

from __future__ import annotations

from modules import shared
from modules.styles import PromptStyle

from ....presets.prompt_styles import shipped_styles


def add_styles() -> dict[str, list[str]]:
    """Adds them to the host's styles file, through the host's own database. `added`, and `kept`: names that are there
    already, which stay as they are."""
    database = shared.prompt_styles
    database.reload()  # saving writes every styles file anew: with what is in them now
    styles = shipped_styles()
    added = [style for style in styles if style.name not in database.styles]
    for style in added:
        database.styles[style.name] = PromptStyle(style.name, style.prompt, style.negative_prompt)
    if added:
        database.save_styles()
    return {"added": [style.name for style in added],
            "kept": [style.name for style in styles if style not in added]}
