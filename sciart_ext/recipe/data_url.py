"""Pictures as texts, `data:image/png;base64,…`: of people one does not know, so with limits before they are decoded."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import SciArtError, shown

if TYPE_CHECKING:  # few recipes have a picture, and many are read
    from PIL import Image

MOST_PIXELS = 4096 * 4096


def decoded(text: object, what: str, wanted: str, formats: Sequence[str], most_characters: int,
            most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The picture, loaded (of several frames the first). what: what it is called; wanted: what is
    accepted, for errors; formats: Pillow's names, in capitals.

    Raises `SciArtError` (without a field) for what is none, is larger, or cannot be read.
    """
    from PIL import Image

    if not isinstance(text, str):
        raise SciArtError("", f"got {shown(text)}; {wanted}")
    if len(text) > most_characters:
        raise SciArtError("", f"{what} has {len(text)} characters, at most {most_characters} are accepted")
    head, _, data = text.partition(",")
    names = [name.lower() for name in formats] + ["jpg"] * ("JPEG" in formats)
    if head not in [f"data:image/{name};base64" for name in names]:
        raise SciArtError("", f"got a text that begins with {shown(text[:30])}; {wanted}")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=formats)
        if picture.width * picture.height <= most_pixels:
            picture.load()
            return picture
    except Exception as error:  # a decoder may raise anything about a broken file
        raise SciArtError("", f"{what} cannot be read ({shown(str(error))[1:-1]}); {wanted}") from None
    raise SciArtError("", f"{what} is {picture.width} x {picture.height}, at most {most_pixels} pixels are accepted")
