"""The host's infotext: written into a PNG's `parameters`, and read back."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..recipe.infotext_line import check_readable
from ..whole_file import written_whole

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def infotext(prompt: str, negative: str, fields: dict[str, object]) -> str:
    """Prompt, negative prompt and one line `Key: value, …`, quoted as the host does."""
    line = ", ".join(f"{key}: {_quoted(value)}" for key, value in fields.items() if value is not None)
    negative = f"\nNegative prompt: {negative}" if negative else ""
    return f"{prompt}{negative}\n{line}".strip()


def parse_infotext(text: str) -> dict[str, str]:
    """The fields of an infotext, with `Prompt` and `Negative prompt`. Raises `SciArtError` for what would take too long
    to read."""
    check_readable(text, "infotext")
    *lines, last = text.strip().split("\n")
    fields = {key: _unquoted(value) for key, value in _PAIR.findall(last)}
    body = "\n".join(lines)
    prompt, _, negative = body.partition("\nNegative prompt: ") if "Negative prompt: " in body else (body, "", "")
    return {"Prompt": prompt, "Negative prompt": negative, **fields}


def save_png(image: Image.Image, path: Path, text: str) -> Path:
    """Saves a picture with its infotext; by another ending than a PNG's in that format, without it."""
    info = PngInfo()
    info.add_text("parameters", text)
    kind = Image.registered_extensions().get(Path(path).suffix.lower(), "PNG")
    with written_whole(path) as temporary:
        image.save(temporary, kind, pnginfo=info)
    return path


def read_png(path: Path) -> dict[str, str]:
    """The fields of a PNG's infotext; empty where it has none."""
    with Image.open(path) as image:
        text = image.info.get("parameters", "")
    return parse_infotext(text) if text else {}


def _unquoted(value: str) -> str:
    """As the host does: what is not quoted as JSON stays as it is."""
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value.strip()


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
