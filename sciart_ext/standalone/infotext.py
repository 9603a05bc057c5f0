"""The host's infotext: written into pictures where the host writes it, and read back.

A PNG has it as its text `parameters`, JPEG and WebP have it as the UserComment of their EXIF data, in UTF-16 after the
mark UNICODE.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import SciArtError
from ..recipe.infotext_line import check_readable
from ..whole_file import written_whole

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY = 95
"""of JPEG and WebP, in percent"""
_MOST_EXIF = 65533
"""bytes that a JPEG has room for"""
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_UNICODE = b"UNICODE\0"
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


def save_picture(image: Image.Image, path: Path, text: str) -> Path:
    """Saves a picture with its infotext, as PNG, JPEG or WebP by the name's ending. Raises `SciArtError`, also where
    the infotext is too long for a JPEG."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise SciArtError("out", f"{Path(path).name}; accepted: a name that ends in {', '.join(FORMATS)}")
    if kind == "PNG":
        options: dict = {"pnginfo": PngInfo()}
        options["pnginfo"].add_text("parameters", text)
    else:
        exif = Image.Exif()
        exif[_EXIF_IFD] = {_USER_COMMENT: _UNICODE + text.encode("utf-16-be")}
        options = {"exif": exif.tobytes(), "quality": QUALITY}
        if kind == "JPEG" and len(options["exif"]) > _MOST_EXIF:
            raise SciArtError(Path(path).name, f"the infotext takes {len(options['exif'])} bytes, a JPEG has room for "
                                               f"{_MOST_EXIF}; accepted: .png or .webp")
        image = image.convert("RGB")
    with written_whole(path) as temporary:
        image.save(temporary, kind, **options)
    return path


def read_picture(path: Path) -> dict[str, str]:
    """The fields of a picture's infotext; empty where it has none."""
    with Image.open(path) as image:
        text = image.info.get("parameters") or _user_comment(image)
    return parse_infotext(text) if text else {}


def _user_comment(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    comment = comment if isinstance(comment, bytes) else str(comment).encode("utf-8")
    if comment.startswith(_UNICODE):
        return comment[len(_UNICODE):].decode("utf-16-be", "replace")
    return ""


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
