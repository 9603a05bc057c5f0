"""Small pictures of presets: NAME.webp beside NAME.json, shown where presets are chosen from."""

from __future__ import annotations

import base64
import io

from PIL import Image

from ..errors import SciArtError
from ..recipe.data_url import decoded
from ..whole_file import delete, one_at_a_time, written_whole
from .files import one_line, read_limited
from .store import PresetStore

SIDE = 144
"""pixels of a thumbnail's side"""
MAX_TEXT = 2_000_000
MOST_PIXELS = 4096 * 4096
"""of a picture that is given"""
MOST_BYTES = 1 << 18
MOST_SIDE = 1024
"""of a thumbnail that lies there"""
_START = "data:image/png;base64,"


def listed_with_pictures(store: PresetStore) -> list[dict]:
    """`PresetStore.listed`, each that can be used with "thumbnail", a data URL or None, and "thumbnail_error", a line
    where a picture lies there that is none."""
    return [preset if "error" in preset else {**preset, **_told(store, preset)} for preset in store.listed()]


def thumbnail(store: PresetStore, name: str) -> str | None:
    """The preset's picture as a data URL; None where it has none. Raises `SciArtError` for what is no small WebP."""
    for folder in (store.builtin_dir, store.user_dir / "presets"):
        if (folder / f"{name}.json").is_file():
            path = folder / f"{name}.webp"
            if not path.exists() and not path.is_symlink():
                return None
            data = read_limited(path, MOST_BYTES, "thumbnail")
            size = webp_size(data)
            if size is None:
                raise SciArtError("thumbnail", f"{path.name} is no WebP; accepted: WebP")
            if max(size) > MOST_SIDE:
                raise SciArtError("thumbnail", f"{path.name} is {size[0]} x {size[1]}; accepted: at most {MOST_SIDE} x "
                                               f"{MOST_SIDE}")
            return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    return None


def save_thumbnail(store: PresetStore, name: str, picture: str | None) -> None:
    """Keeps the picture of one of the user's presets, given as a PNG's data URL; None takes an older one away.

    Raises `SciArtError` for what is no such picture, and for presets that are not the user's.
    """
    preset = store.read(name, "name")
    if preset.builtin:
        raise SciArtError("name", f"{name!r} is shipped with SciArt and keeps its picture")
    path = store.user_dir / "presets" / f"{name}.webp"
    data = None if picture is None else as_webp(_opened(picture))
    with one_at_a_time(store.user_dir):
        if data is None:
            delete(path)
            return
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


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP's head tells, without decoding it; None for what is none.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def _told(store: PresetStore, preset: dict) -> dict:
    try:
        return {"thumbnail": thumbnail(store, preset["name"]), "thumbnail_error": ""}
    except SciArtError as error:
        return {"thumbnail": None, "thumbnail_error": one_line(str(error))}


def _opened(picture: object) -> Image.Image:
    wanted = f"expected a PNG as the text {_START}… of at most {MAX_TEXT} characters"
    try:
        return decoded(picture, "the picture", wanted, ["PNG"], MAX_TEXT, MOST_PIXELS).convert("RGB")
    except SciArtError as error:
        raise SciArtError("thumbnail", error.message) from None
