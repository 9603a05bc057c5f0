"""Presets, their pictures and the prompt styles; `shipped/` has those that come with SciArt."""

from .store import BUILTIN_DIR, USER_DIR, Preset, PresetStore, filled_in, resolve, suggest

__all__ = ["Preset", "PresetStore", "filled_in", "resolve", "suggest", "BUILTIN_DIR", "USER_DIR"]
