"""What is said below the tab's buttons, and over the page."""

from __future__ import annotations

import html

import gradio as gr

from ..errors import SciArtError


def notice(text: object) -> str:
    """A line, as HTML; errors are marked and read out."""
    attributes = ' class="sciart-error" role="alert"' if isinstance(text, SciArtError) else ""
    return f"<p{attributes}>{html.escape(str(text))}</p>"


def help_link(address: str) -> str:
    """A link to the manual, as HTML; nothing without an address."""
    if not address:
        return ""
    return f'<p class="sciart-help"><a href="{html.escape(address)}" target="_blank" rel="noopener">Help</a></p>'


def warn(text: str) -> None:
    """Over the page, for some seconds; without a page, a warning of Python's."""
    gr.Warning(text)
