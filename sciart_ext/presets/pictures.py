"""Small pictures of presets: NAME.webp beside NAME.json, shown where presets are chosen from."""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image

from ..errors import SciArtError
from ..whole_file import delete, written_whole
from .store import PresetStore

SIDE = 144
"""pixels of a thumbnail's side"""
MAX_TEXT = 2_000_000
_START = "data:image/png;base64,"


def thumbnail(store: PresetStore, name: str) -> str | None:
    """The preset's picture as a data URL; None where it has none."""
    for folder in (store.builtin_dir, store.user_dir / "presets"):
        if (folder / f"{name}.json").is_file():
            path = folder / f"{name}.webp"
            return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else None
    return None


def save_thumbnail(store: PresetStore, name: str, picture: str | None) -> None:
    """Keeps the picture of one of the user's presets, given as a PNG's data URL; None takes an older one away.

    Raises `SciArtError` for what is no such picture, and for presets that are not the user's.
    """
    preset = store.read(name, "name")
    if preset.builtin:
        raise SciArtError("name", f"{name!r} is shipped with SciArt and keeps its picture")
    path = store.user_dir / "presets" / f"{name}.webp"
    if picture is None:
        delete(path)
        return
    data = as_webp(_opened(picture))
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def as_webp(picture: Image.Image, quality: int = 80) -> bytes:
    """The picture, cut to a square and made small."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS,
                                          box=(left, top, left + side, top + side))
    written = io.BytesIO()
    small.save(written, "webp", quality=quality, method=6)
    return written.getvalue()


def _opened(picture: object) -> Image.Image:
    if not isinstance(picture, str) or not picture.startswith(_START) or len(picture) > MAX_TEXT:
        raise SciArtError("thumbnail", f"expected a PNG as the text {_START}… of at most {MAX_TEXT} characters")
    try:
        opened = Image.open(io.BytesIO(base64.b64decode(picture[len(_START):], validate=True)), formats=["PNG"])
        opened.load()
    except (binascii.Error, OSError, ValueError, Image.DecompressionBombError) as error:
        raise SciArtError("thumbnail", f"cannot be read as a PNG: {error}") from None
    return opened
