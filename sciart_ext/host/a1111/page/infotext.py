"""Pasting infotext: a picture made without SciArt switches SciArt off, so that the paste makes that picture; one made
with a newer SciArt is said to be so."""

from __future__ import annotations

import logging
import re

from modules import script_callbacks

from .... import __version__
from ....recipe import INFOTEXT_KEY, VERSION_KEY
from ....ui.notices import warn

log = logging.getLogger("sciart")


def register_infotext() -> None:
    """Takes part in the host's paste button."""
    script_callbacks.on_infotext_pasted(switch_off_unless_given)
    script_callbacks.on_infotext_pasted(tell_of_newer)


def switch_off_unless_given(infotext: str, params: dict) -> None:
    """Empties the recipe where a whole infotext (one with Steps) has none."""
    if "Steps" in params:
        params.setdefault(INFOTEXT_KEY, "")


def tell_of_newer(infotext: str, params: dict) -> None:
    """A note where the picture was made with a newer SciArt, which may know more."""
    made_with = params.get(VERSION_KEY, "")
    if _numbers(made_with) > _numbers(__version__):
        text = f"This picture was made with SciArt {made_with}, this is {__version__}: it may come out otherwise"
        log.warning(text)  # over the API there is no page to say it on
        warn(text)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
