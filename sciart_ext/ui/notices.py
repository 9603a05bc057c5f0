"""What the tab says below its buttons."""

from __future__ import annotations

import html

from ..errors import SciArtError


def notice(text: object) -> str:
    """A line, as HTML; errors are marked and read out."""
    attributes = ' class="sciart-error" role="alert"' if isinstance(text, SciArtError) else ""
    return f"<p{attributes}>{html.escape(str(text))}</p>"
