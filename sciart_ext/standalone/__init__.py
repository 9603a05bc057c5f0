"""The engine without a WebUI: on diffusers, from a command line. Needs the extra `standalone`."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import SciArtError

EXTRAS = ("diffusers", "transformers", "accelerate")


def require_extras() -> None:
    """Raises `SciArtError` where a package of the extra `standalone` is missing."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise SciArtError("standalone", f"{', '.join(missing)} not installed; pip install \"sciart[standalone]\"")
