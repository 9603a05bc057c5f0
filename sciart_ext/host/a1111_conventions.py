"""What the host's other pages get from SciArt: settings, and axes of the X/Y/Z plot."""

from __future__ import annotations

from modules import script_callbacks

from .a1111_settings import add_settings
from .a1111_xyz import add_axes


def register_settings_and_axes() -> None:
    """Before the page is built. Not on_before_ui: without a page (--nowebui) that comes after the scripts are set up,
    and the API would know none of the axes."""
    script_callbacks.on_ui_settings(add_settings)
    script_callbacks.on_ui_settings(add_axes)
