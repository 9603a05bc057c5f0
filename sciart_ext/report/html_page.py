"""Parts of a self-contained HTML page: everything that is shown is in the file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence

from PIL import Image

from .. import __version__

MAX_SIDE = 384
"""pixels of an embedded picture"""

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1rem auto; padding: 0 1rem }
h1, h2 { margin: 1.2rem 0 .5rem; line-height: 1.2; font-size: 1.25rem }
h1 { font-size: 1.5rem }
h1:first-of-type { margin-top: 0 }
.scroll { overflow-x: auto }
.pictures td, .pictures th { padding: .25rem; text-align: center; vertical-align: top; font-weight: normal }
.pictures img { width: 11rem; image-rendering: pixelated; display: block; margin: auto }
.pictures small { opacity: .7; display: block; max-width: 11rem; margin: auto }
.numbers td, .numbers th { padding: .2rem 1rem; text-align: right; font-weight: normal }
.numbers th:first-child { text-align: left }
.bar { display: flex; height: 1.6rem; border-radius: .3rem; overflow: hidden; max-width: 44rem; color: #000 }
.bar span { overflow: hidden; text-align: center; white-space: nowrap }
.scale { max-width: 30rem }
.scale img { width: 100%; display: block }
.scale div { display: flex; justify-content: space-between }
.sentences { padding-left: 1.2rem }
.sentences li::marker { color: var(--mark) }
meter { width: 6rem; vertical-align: middle }
svg { max-width: 44rem; width: 100%; display: block }
pre { background: #8882; padding: 1rem; overflow: auto }
"""


def page(title: str, body: str, style: str = "") -> str:
    """The whole document; style: CSS beside the one of all pages."""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>{_STYLE}{style}</style>
{body}
<p>SciArt {__version__}</p>
</html>
"""


def picture(image: Image.Image, told: str) -> str:
    """An `<img>` with its data, made smaller where no side needs so many pixels; told: what it shows, for those who
    cannot see it."""
    shown = image.copy()
    shown.thumbnail((MAX_SIDE, MAX_SIDE))
    return f'<img src="data:image/png;base64,{base64_png(shown)}" alt="{html.escape(told)}">'


def base64_png(image: Image.Image) -> str:
    """The picture's PNG file as text."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def pictures_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, HTML, under their heads, text, if there are any; it scrolls where it is wider than the page."""
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="pictures">{f"<tr>{top}</tr>" if top else ""}{body}</table></div>'


def numbers_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of a name, text, and cells, HTML, under the heads of these, text."""
    top = "".join(f"<th>{html.escape(head)}</th>" for head in ("", *heads))
    body = "".join(f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
                   for name, *cells in rows)
    return f'<div class="scroll"><table class="numbers"><tr>{top}</tr>{body}</table></div>'


def json_block(data: object) -> str:
    return f"<pre>{html.escape(json.dumps(data, ensure_ascii=False, indent=2))}</pre>"
